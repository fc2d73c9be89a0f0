"""Rows whose images are lost, made again on the devices by the pipeline that made them."""

from __future__ import annotations

from jobs.engine.cluster import reason
from jobs.engine.pipeline import EngineStoppedError
from jobs.monitoring.progress import RunProgress
from jobs.run.retry_errors import FailedRows, make_rows
from jobs.run.signals import Stop, StopNowError
from jobs.schedule.running import start
from manifests.commit import Receipt
from manifests.config import RunConfig
from manifests.errors import IncompleteRunError
from manifests.planning.plan import Plan


def make_again(config: RunConfig, planned: Plan, rows: FailedRows, root: str, progress: RunProgress) -> None:
    """Make rows of a plan and stage them.

    Args:
        config: that of the output; its last start may have made embeddings only.
        root: folder that they are staged in, laid out as an output.

    Raises:
        IncompleteRunError: some rows could not be made.
        UsageError: nothing can be made here: no checkpoint, no device.
    """
    config = config.model_copy(update={"stage": "all"})
    with Stop(config.grace, progress.note) as stop, start(config, planned, progress, stop) as running:
        running.hear = lambda stored: stop.came()

        def on_batch(receipt: Receipt, _whole: bool) -> bool:
            progress.received(receipt)
            return stop.came()

        progress.phase("making images again")
        progress.start(rows.count)
        stop.wait_for(running.setup.pools.decoder.most)
        missing, why = 0, ""
        try:
            missing = make_rows(running, planned, rows, root, on_batch)
        except StopNowError:
            pass
        except EngineStoppedError as error:
            missing, why = len(rows.rows), str(error)
        stop.check()
        if missing:
            raise IncompleteRunError(f"{missing} batches could not be made again: {why or reason(running.said.text)}")
    progress.finish()
