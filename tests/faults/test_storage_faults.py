"""Storage that fails while a job runs: what passes is survived, what does not ends the run cleanly, and it goes on."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import fsspec
import pytest

from manifests import storage
from manifests.embeddings import kept_clip
from manifests.errors import CheckpointError, StorageError
from tests.faults.conftest import QuickJob, shard_files
from tests.s3_server import S3Server
from workers.checkpoints import random_weights
from workers.checkpoints.locations import DECODER, check, local_folder

pytestmark = [pytest.mark.faults, pytest.mark.ray]


def test_the_real_client_survives_a_store_that_is_down_for_a_while(s3: S3Server) -> None:
    s3.down_for = 4
    storage.write_atomic("s3://bucket/a/b", b"x")
    assert s3.refused
    s3.every = 3
    assert storage.read_bytes("s3://bucket/a/b") == b"x"
    assert storage.list_names("s3://bucket/a") == ["b"]
    storage.remove("s3://bucket/a", recursive=True)
    assert not storage.exists("s3://bucket/a/b")


def test_a_missing_bucket_is_told_at_once(s3: S3Server) -> None:
    with pytest.raises(StorageError, match="the bucket must exist"):
        storage.write_atomic("s3://no-such-bucket/a", b"x")


def test_a_checkpoint_is_fetched_from_a_store_that_fails_every_fourth_request(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random_weights.write(tmp_path, lambda _name, _config: {"weight": (2, 2)})
    fsspec.filesystem("s3").put(str(tmp_path / DECODER), f"bucket/models/{DECODER}", recursive=True)
    monkeypatch.setenv("KANDINSKY_BATCH_CACHE", str(tmp_path / "cache"))
    s3.every = 4
    with pytest.raises(CheckpointError, match="s3://bucket/models/kandinsky-2-1-prior lacks model_index"):
        check("s3://bucket/models", ["text2img"])
    folder = local_folder("s3://bucket/models", lambda _name, _config: {}, [DECODER])
    assert s3.refused
    files = [path.relative_to(tmp_path) for path in (tmp_path / DECODER).rglob("*") if path.is_file()]
    assert len(files) > 5
    assert all((folder / file).read_bytes() == (tmp_path / file).read_bytes() for file in files)


def test_a_whole_job_on_an_object_store_that_fails_every_fifth_request(
    s3: S3Server, quick_job: QuickJob, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    # A cluster of its own: the shared one's workers have no keys for this store.
    environment = {**quick_job.environment, **s3.environment, "RAY_ADDRESS": "local"}
    job = QuickJob(quick_job.manifest, quick_job.folder, environment)
    s3.every = 5
    ended = job.run("s3://bucket/runs/out")
    assert ended.returncode == 0, ended.stderr
    assert s3.refused > 10
    s3.every = 0
    assert job.wrong("s3://bucket/runs/out") == []
    found = {}
    for folder in ("", f"/{kept_clip.FOLDER}/img_emb", f"/{kept_clip.FOLDER}/metadata"):
        url = f"s3://bucket/runs/out{folder}"
        names = [name for name in storage.list_names(url) if folder or name[0].isdigit()]
        found |= {name: storage.read_bytes(f"{url}/{name}") for name in names}
    assert found == undisturbed


def test_a_full_disk_stops_the_run_and_with_room_it_goes_on(
    quick_job: QuickJob, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        ended = quick_job.run(disk / "out")
        assert ended.returncode == 1
        last = ended.stderr.splitlines()[-1]
        assert "No space left on device" in last
        assert "free some space" in last
        assert "the same command goes on from here" in last
        assert "Traceback" not in ended.stderr
        assert not (disk / "out" / "_SUCCESS").exists()
        # Those that wrote something else at that moment were ended with the run, and may have left theirs.
        refused = re.search(r"cannot write (\S+): ", last)
        assert refused is not None, last
        folder, _, name = refused[1].rpartition("/")
        assert not [left for left in os.listdir(folder) if left.startswith(f".{name}.")]
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        again = quick_job.run(disk / "out")
        assert again.returncode == 0, again.stderr
        assert "going on from" in again.stderr
        assert quick_job.wrong(disk / "out") == []
        assert shard_files(disk / "out") == undisturbed
    finally:
        # A process of the cluster that is just ending may still be there.
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
