"""`jobs/generate.py` on NPUs that are not there, with the real models: each actor takes its NPU as on Ascend, and only
where MindSpore would be asked for the card it is asked for the CPU.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jobs.engine.pipeline
from jobs.cli import run_script
from jobs.generate import main
from workers.stages.decoder import Decoder
from workers.stages.prior import Prior


def replace_the_card() -> None:
    """In this process, before it takes its device."""
    import mindspore as ms

    from workers.device import cpu_kernels, device

    def use_card(options: Any) -> None:
        ms.set_device("CPU")
        cpu_kernels.install()

    device.use_card = use_card
    device.dtype = lambda kind: ms.float32  # type: ignore[assignment]


class SeamPrior(Prior):
    def __init__(self, *arguments: Any) -> None:
        replace_the_card()
        super().__init__(*arguments)


class SeamDecoder(Decoder):
    def __init__(self, *arguments: Any) -> None:
        replace_the_card()
        super().__init__(*arguments)


# Read by Ray where the driver pickles them, so by value: workers cannot import this script.
jobs.engine.pipeline.Prior = SeamPrior  # type: ignore[misc, assignment]
jobs.engine.pipeline.Decoder = SeamDecoder  # type: ignore[misc, assignment]

if __name__ == "__main__":
    run_script(main)
