"""How far the job's images are from PyTorch's: runs the job on the golden manifest and prints a table.

    python -m tests.goldens.compare [--batch-size N …] [--checkpoint demo] [--graph]

The manifest is shuffled anew for every run, so that each image meets other images in its batch.
"""

from __future__ import annotations

import argparse
import io
import random
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
MANIFEST = FOLDER / "requests.parquet"

#: What the tests allow: relative L2 of the latents, and levels of 255 of the worst channel of the worst pixel.
LATENTS_LIMIT = 1e-4
PIXELS_LIMIT = 2

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Made:
    """One image: its row of the index, latents (4, height / 8, width / 8) and uint8 pixels (height, width, 3)."""

    row: Mapping[str, Any]
    latents: Array
    pixels: Array


@dataclass(frozen=True)
class Difference:
    """One image against its golden."""

    name: str
    task: str
    latents: float
    pixels: int
    mean_pixels: float


def made(output: Path) -> dict[str, Made]:
    """Every image of an output that was made with `--dump-latents`, by `{id}-{image_index}`."""
    images: dict[str, Made] = {}
    for index in sorted(output.glob("*.parquet")):
        rows = pq.read_table(index).to_pylist()
        with tarfile.open(index.with_suffix(".tar")) as tar:
            for row in rows:
                assert row["status"] == "success", row["error_message"]
                latents, png = (_member(tar, f"{row['key']}.{kind}") for kind in ("latent.npy", "png"))
                name = f"{row['id']}-{row['image_index']}"
                images[name] = Made(row, np.load(latents), np.asarray(Image.open(png)))
    return images


def _member(tar: tarfile.TarFile, name: str) -> io.BytesIO:
    stream = tar.extractfile(name)
    assert stream is not None
    return io.BytesIO(stream.read())


def goldens(checkpoint: str = "random") -> Iterator[tuple[str, Array, Array]]:
    """Name, latents and pixels of every golden of `random` or `demo`."""
    with np.load(FOLDER / checkpoint / "latents.npz") as latents:
        for name in latents.files:
            yield name, latents[name], np.asarray(Image.open(FOLDER / checkpoint / "images" / f"{name}.png"))


def requests_of(checkpoint: str) -> pa.Table:
    """The rows of the golden manifest that the checkpoint has goldens of."""
    ids = {name.rpartition("-")[0] for name, _, _ in goldens(checkpoint)}
    table = pq.read_table(MANIFEST)
    return table.filter(pc.is_in(table["id"], pa.array(sorted(ids))))


def differences(
    images: Mapping[str, Made], names: Container[str] | None = None, checkpoint: str = "random"
) -> list[Difference]:
    """Each golden, or those named, against the job's image; KeyError where the job did not make it."""
    result = []
    for name, latents, pixels in goldens(checkpoint):
        if names is not None and name not in names:
            continue
        image = images[name]
        assert (image.latents.shape, image.pixels.shape) == (latents.shape, pixels.shape), name
        apart = np.abs(image.pixels.astype(int) - pixels)
        relative = float(np.linalg.norm(image.latents - latents) / np.linalg.norm(latents))
        result.append(Difference(name, image.row["task"], relative, int(apart.max()), float(apart.mean())))
    return result


def shuffled(seed: int, target: Path, checkpoint: str = "random") -> Path:
    """The golden manifest of a checkpoint in another order, written to `target`."""
    table = requests_of(checkpoint)
    order = list(range(table.num_rows))
    random.Random(seed).shuffle(order)
    pq.write_table(table.take(pa.array(order)), target)
    return target


def table_text(runs: Mapping[str, Sequence[Difference]]) -> str:
    """Markdown: one line per run and task, worst and mean values."""
    lines = [
        "| batch size | task | images | latents, worst relative L2 | pixels, worst | pixels, mean |",
        "|---|---|---|---|---|---|",
    ]
    for run, found in runs.items():
        for task in ("text2img", "img2img", "inpaint", "interpolate"):
            of_task = [difference for difference in found if difference.task == task]
            worst = max(difference.latents for difference in of_task)
            pixel = max(difference.pixels for difference in of_task)
            mean = np.mean([difference.mean_pixels for difference in of_task])
            lines.append(f"| {run} | {task} | {len(of_task)} | {worst:.1e} | {pixel} / 255 | {mean:.4f} / 255 |")
    return "\n".join(lines)


def main() -> int:
    """Run the job once per batch size; exit code 1 where a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--checkpoint", choices=["random", "demo"], default="random", help="whose goldens")
    parser.add_argument("--graph", action="store_true", help="as compiled graphs")
    given = parser.parse_args()
    runs: dict[str, list[Difference]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, size in enumerate(given.batch_size):
            manifest = shuffled(number, Path(folder) / f"{number}.parquet", given.checkpoint)
            output = Path(folder) / f"output-{number}"
            script = [sys.executable, str(ROOT / "jobs" / "generate.py"), "--device", "cpu", "--dump-latents"]
            script += ["--graph"] if given.graph else []
            script += ["--checkpoint", given.checkpoint]
            settings = ["--manifest", str(manifest), "--output", str(output), "--batch-size", str(size)]
            subprocess.run([*script, *settings], check=True, stdout=subprocess.DEVNULL)
            runs[str(size)] = differences(made(output), checkpoint=given.checkpoint)
    print(table_text(runs))
    found = [difference for run in runs.values() for difference in run]
    too_far = [d.name for d in found if d.latents > LATENTS_LIMIT or d.pixels > PIXELS_LIMIT]
    print(f"over the limits ({LATENTS_LIMIT} and {PIXELS_LIMIT} / 255): {', '.join(too_far) or 'none'}")
    return 1 if too_far else 0


if __name__ == "__main__":
    sys.exit(main())
