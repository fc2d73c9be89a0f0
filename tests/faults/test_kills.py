"""kill -9 at any moment: started again until it is done, the output is byte for byte that of an undisturbed run."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from manifests.commit import part_url, read_stats, sealed_shards, staged_parts
from tests.faults.conftest import QuickJob, shard_files, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.ray]

#: Each costs a start of the job, some ten seconds; `KILLS=1000` for a night (tests/faults/__main__.py).
KILLS = int(os.environ.get("KILLS", "4"))

#: Another one each time it is set; printed, so that a failure can be repeated.
SEED = int(os.environ.get("KILLS_SEED", "1"))


def batches_of(output: Path) -> int:
    """Batches that are made; five are a shard."""
    sealed = sealed_shards(str(output))
    staged = staged_parts(str(output)).items()
    return 5 * len(sealed) + sum(len(batches) for shard, batches in staged if shard not in sealed)


def assert_never_half(output: Path) -> None:
    """Under a final name there is nothing or a whole file: every sealed shard is what its stats say."""
    for shard in sealed_shards(str(output)):
        stats = read_stats(str(output), shard)
        for file in stats.files:
            assert (output / file.name).stat().st_size == file.bytes
    for shard, batches in staged_parts(str(output)).items():
        for batch in batches:
            try:
                part = Path(part_url(str(output), shard, batch)).read_bytes()
            except FileNotFoundError:
                # A seal may outlive its driver for a moment, and then takes the parts away.
                assert shard in sealed_shards(str(output))
            else:
                assert part[-6:] == b"ARROW1"


def test_a_driver_killed_at_random_moments_makes_the_same_bytes(
    quick_job: QuickJob, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    moments = random.Random(SEED)
    # So slow, and so few batches from kill to kill, that one run lasts for all of them.
    slow = quick_job.with_environment(QUICK_SECONDS="0.6")
    most = max(1, 30 // KILLS)
    kills = 0
    while kills < KILLS:
        process = slow.start(output)
        # Most of them within the work, where most can go wrong: some batches on, which is where seals are as well.
        if kills % 4:
            goal = batches_of(output) + moments.randint(1, most)
            wait_for(lambda goal=goal, output=output: batches_of(output) >= goal, process)
            time.sleep(moments.uniform(0, 0.3))
        else:
            time.sleep(moments.uniform(0.5, 8))
        ended = process.poll() is not None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert_never_half(output)
        print(f"kill {kills} (seed {SEED}): {batches_of(output)} of 30 batches, ended before: {ended}")
        if ended:
            # Done before it could be killed, and so no kill; the others are for another run.
            assert process.returncode == 0
            assert shard_files(output) == undisturbed
            output = tmp_path / f"out-{kills}"
        else:
            kills += 1
    ended_well = quick_job.run(output)
    assert ended_well.returncode == 0, ended_well.stderr
    assert shard_files(output) == undisturbed
    assert quick_job.wrong(output) == []
    # What was killed left no litter that anybody would take for a result.
    assert not [name for name in os.listdir(output) if not re.match(r"\d{5}|_|\.", name)]


def test_sealed_shards_that_vanished_are_made_again_also_where_sealing_tasks_are_killed(
    quick_job: QuickJob, undisturbed_output: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    output, died = Path(shutil.copytree(undisturbed_output, tmp_path / "out")), tmp_path / "died"
    (output / "_SUCCESS").unlink()
    for shard in ("00001", "00002", "00004"):
        for path in output.glob(f"{shard}*"):
            path.unlink()
    # The first three seals die right before the stats file is written; Ray starts each again.
    ended = quick_job.with_environment(QUICK_SEAL_DIES=str(died)).run(output)
    assert ended.returncode == 0, ended.stderr
    assert "going on from" in ended.stderr
    assert len(list(died.iterdir())) == 3
    assert shard_files(output) == undisturbed
    assert quick_job.wrong(output) == []
    assert (output / "_SUCCESS").exists()
