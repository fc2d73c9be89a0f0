"""quick_generate.py on make-believe NPUs, one of which ends every process that uses it."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pyarrow as pa
import ray

import jobs.engine.pipeline
from jobs.cli import run_script
from jobs.generate import main
from manifests.batch import Batch
from manifests.errors import RowError
from tests.faults import quick_generate
from workers.fault_tolerance.guard import Guard

#: "all", or a file that the first decoder writes its device into, which is then the broken one.
BROKEN = os.environ["BROKEN_NPU"]

#: The broken one raises where it would end the process, and nothing starts again on another device meanwhile.
RAISES = "BROKEN_RAISES" in os.environ


def is_first(file: Path, npu: str) -> bool:
    with suppress(FileExistsError), file.open("x") as opened:
        opened.write(npu)
    return file.read_text() == npu


class Decoder(quick_generate.Decoder):
    """Guarded as the real one is."""

    def __init__(self, config: Any, kind: Any, attempts: Any, graphs: Any, tasks: Any) -> None:
        super().__init__(config, kind)
        self._guard = Guard("decoder", "failed_to_generate", 60, attempts)
        with self._guard.starting():
            (npu,) = ray.get_runtime_context().get_accelerator_ids()["NPU"]
            self._broken, self._raises = BROKEN == "all" or is_first(Path(BROKEN), npu), RAISES

    def __call__(self, block: pa.Table) -> pa.Table:
        make = super().__call__
        deadline = time.monotonic() + 300
        while not self._broken and not ray.get(self._guard.attempts.news.remote()).broken:
            # The work is for the broken one until it is found; else the others might have made everything before.
            assert time.monotonic() < deadline
            time.sleep(0.2)

        def work(rows: Batch) -> Batch:
            try:
                self.use_device()
            except RuntimeError as error:
                return rows.fail(dict.fromkeys(rows.pending, RowError("failed_to_generate", str(error))))
            return Batch.from_block(make(rows.to_block()))

        return self._guard.run(Batch.from_block(block), work, self.use_device).to_block()

    def use_device(self) -> None:
        if self._broken and self._raises:
            raise RuntimeError("device lost")
        if self._broken:
            os._exit(9)


jobs.engine.pipeline.Decoder = Decoder  # type: ignore[misc, assignment]

if __name__ == "__main__":
    run_script(main)
