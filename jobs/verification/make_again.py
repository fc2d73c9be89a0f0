"""Rows whose images are lost, made again on the devices by the pipeline that made them."""

from __future__ import annotations

from jobs.cost.device_split import split_devices
from jobs.engine.cluster import cluster, engine_log, reason
from jobs.engine.pipeline import EngineStoppedError, Setup
from jobs.engine.pools import npus
from jobs.monitoring.progress import RunProgress
from jobs.run.retry_errors import FailedRows, make_rows
from jobs.run.signals import Stop, StopNowError
from manifests.commit import Receipt
from manifests.config import RunConfig
from manifests.errors import IncompleteRunError
from manifests.planning.plan import Plan
from workers.device.device import choose_device
from workers.embeddings.lookup import remembered
from workers.fault_tolerance.attempts import start_attempts


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
    progress.phase("starting Ray")
    with Stop(config.grace, progress.note) as stop, engine_log() as said, cluster(progress.note) as nodes:
        stop.listen()
        device = choose_device(config, npus(nodes))
        pools = split_devices(config, planned, device.kind, nodes, None, progress.note)
        progress.note(f"device: {device.kind} ({device.reason})")
        memory, attempts = remembered(config, device.kind), start_attempts()
        setup = Setup(config, pools, planned.tasks, attempts, progress.note, progress.engine, stop.look, memory)

        def on_batch(receipt: Receipt, _whole: bool) -> bool:
            progress.received(receipt)
            return stop.came()

        progress.phase("making images again")
        progress.start(rows.count)
        stop.wait_for(pools.decoder.most)
        missing, why = 0, ""
        try:
            missing = make_rows(setup, planned, rows, root, on_batch)
        except StopNowError:
            pass
        except EngineStoppedError as error:
            missing, why = len(rows.rows), str(error)
        stop.check()
        if missing:
            raise IncompleteRunError(f"{missing} batches could not be made again: {why or reason(said.text)}")
    progress.finish()
