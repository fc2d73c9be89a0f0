"""For all tests: one cache for the demo checkpoint, and the environment that a process with MindSpore needs.

Processes of the job itself must set that environment themselves; `clean_environment` gives what a person's shell has.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workers.device import PROCESS_ENVIRONMENT

_GIVEN = dict(os.environ)

# Before Ray or anything else imports protobuf.
os.environ.update(PROCESS_ENVIRONMENT)
# Kept between runs: building takes seconds. A changed recipe has another revision and so another folder.
os.environ["KANDINSKY_BATCH_CACHE"] = str(Path(__file__).resolve().parent.parent / ".pytest_cache" / "checkpoints")


@pytest.fixture(scope="session")
def clean_environment() -> dict[str, str]:
    """The environment of a person's shell, with the tests' checkpoint cache.

    A job started in it makes a Ray of its own, whatever cluster another test keeps on this machine meanwhile.
    """
    return {**_GIVEN, "RAY_ADDRESS": "local", "KANDINSKY_BATCH_CACHE": os.environ["KANDINSKY_BATCH_CACHE"]}
