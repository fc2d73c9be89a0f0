"""Real models for the tests of the device code: small ones with random weights on the CPU backend, loaded once."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from workers.checkpoints.locations import local_folder
from workers.device import device


@pytest.fixture(scope="session")
def kandinsky() -> ModuleType:
    device.take("cpu")
    from workers.kandinsky import pipelines

    return pipelines


@pytest.fixture(scope="session")
def checkpoint(kandinsky: ModuleType) -> Path:
    return local_folder("random", kandinsky.parameter_shapes)


@pytest.fixture(scope="session")
def prior(kandinsky: ModuleType, checkpoint: Path) -> Any:
    return kandinsky.PriorModel(checkpoint, device.dtype("cpu"))


@pytest.fixture(scope="session")
def decoder(kandinsky: ModuleType, checkpoint: Path) -> Any:
    return kandinsky.DecoderModel(checkpoint, device.dtype("cpu"))


@pytest.fixture(scope="session")
def plain(checkpoint: Path) -> Any:
    from tests.plain import PlainPipelines

    return PlainPipelines(checkpoint)
