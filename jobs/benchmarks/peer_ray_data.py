"""One side of `jobs.benchmarks.peers`: a plain Ray Data job, as its documents teach batch inference.

    python -m jobs.benchmarks.peer_ray_data CHECKPOINT MANIFEST FOLDER BATCH

Read, map batches over an actor that holds the pipelines, write. Text-to-image goes through them in batches; the other
tasks go row by row, since the pipelines take one image, one mask or one set of conditions a call.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from jobs.benchmarks import peer_requests
from workers.device.device import PROCESS_ENVIRONMENT


class Generate:
    """What the actor does."""

    def __init__(self, checkpoint: Path) -> None:
        from jobs.benchmarks.peer_loop import Loop

        self._loop = Loop(checkpoint)

    def __call__(self, batch: Any) -> dict[str, list[Any]]:
        rows = [peer_requests.opened(row) for row in batch.to_pylist()]
        plain = [row for row in rows if row["task"] == "text2img"]
        images = dict(zip((row["id"] for row in plain), self._loop.make_many(plain) if plain else (), strict=True))
        images |= {row["id"]: self._loop.make(row) for row in rows if row["id"] not in images}
        return {"id": list(images), "png": [peer_requests.png(image) for image in images.values()]}


def main(checkpoint: str, manifest: str, folder: str, batch: str) -> None:
    """Run the job."""
    import ray

    environment = {**PROCESS_ENVIRONMENT, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    ray.init(include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": environment})
    ray.data.DataContext.get_current().enable_progress_bars = False

    (
        ray.data.read_parquet(manifest)
        .map_batches(
            Generate,
            fn_constructor_args=(Path(checkpoint),),
            batch_size=int(batch),
            batch_format="pyarrow",
            concurrency=1,
            num_cpus=1,
        )
        .write_parquet(folder)
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
