"""What a person is told of an engine's failure: the one line that matters; and when its folder is full."""

from __future__ import annotations

import logging

import pytest

from jobs.engine.cluster import FULL_BYTES, FULL_S, Room, engine_log, reason
from manifests import storage
from manifests.errors import StorageError

ACTOR_DIED = """The actor died because of an error raised in its creation task, \x1b[36mray::MapWorker()\x1b[39m
  File "workers/stages/prior.py", line 41, in __init__
    self._model = kandinsky.PriorModel(folder)
           ^^^^^^^^
workers.errors.CheckpointError: unet: no weights
"""

USER_CODE = """ray::MapBatches(inputs)() (pid=1, ip=1.2.3.4)
  File "workers/stages/inputs.py", line 1, in inputs
ValueError: a block must be one batch, got 2 rows

The above exception was the direct cause of the following exception:

ray.data.exceptions.UserCodeException: UDF failed to process a data block.
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (ACTOR_DIED, "workers.errors.CheckpointError: unet: no weights"),
        (USER_CODE, "ValueError: a block must be one batch, got 2 rows"),
        (
            "The actor died unexpectedly before finishing this task.\nclass_name: X",
            "The actor died unexpectedly before",
        ),
        ("", "no reason given"),
    ],
)
def test_the_reason_is_the_error_under_the_wrappers(text: str, line: str) -> None:
    assert reason(text).startswith(line)


def test_the_engines_words_are_kept_and_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with engine_log() as said:
        print("\x1b[33m(raylet)\x1b[0m Task failed")
        logging.getLogger("ray.data").error("a block was given up")
        logging.getLogger("ray.data").info("starting")
    print("afterwards")
    assert said.text == "(raylet) Task failed\na block was given up\n"
    assert capfd.readouterr() == ("afterwards\n", "")


def test_a_full_folder_of_rays_ends_the_run_when_it_stays_full(monkeypatch: pytest.MonkeyPatch) -> None:
    free, now = [FULL_BYTES], [0.0]
    monkeypatch.setattr(storage, "free_bytes", lambda folder: free[0])
    room = Room("/ray", lambda: now[0])
    for free[0], now[0] in ((FULL_BYTES, 0), (0, 1), (0, FULL_S), (FULL_BYTES, FULL_S + 1), (0, FULL_S + 2)):
        room.check()
    now[0] = 2 * FULL_S + 2
    with pytest.raises(StorageError, match=r"No space left on device: /ray, where Ray keeps .*RAY_TMPDIR"):
        room.check()


def test_where_there_is_no_ray_its_folder_is_not_looked_at() -> None:
    Room(None).check()
