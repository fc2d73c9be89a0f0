"""What scores cost and what they tell: their part of the device time, and how well they know an image's own caption.

The job runs with the demo checkpoint on captions of its world, each of one object on one colour. Its images are held
against all captions, by the embeddings that it keeps: the own one should be the likeliest.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.benchmarks import child, tables
from manifests.errors import KandinskyBatchError, UsageError

NAME = "scores"
HELP = "what --scores costs a run of the demo checkpoint, and how well CLIP tells an image's caption from others"

OBJECTS = ("cat", "dog", "rocket", "house", "tree", "robot", "boat", "hat")
COLOURS = ("red", "blue", "yellow", "green", "purple", "pink")

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Separation:
    """Cosines of images and captions.

    Attributes:
        own, others: means, of an image and its own caption and of an image and another's.
        auc: how often the own one is likelier than another's, 0.5 where the two cannot be told apart.
    """

    own: float
    others: float
    auc: float


def add_options(options: argparse._ArgumentGroup) -> None:
    """The options of this sub-command."""
    options.add_argument("--images", type=int, default=48, metavar="N", help="images to make (default: 48)")
    options.add_argument("--batch-size", type=int, default=4, metavar="N", help="samples per device call (default: 4)")


def run(arguments: argparse.Namespace) -> None:
    """Make the images, and print what was found."""
    if arguments.images < 2 or arguments.batch_size < 1:
        raise UsageError("options --images and --batch-size: give 2 images and a batch of 1 at least")
    with tempfile.TemporaryDirectory(prefix="scores-") as folder:
        output = Path(folder) / "out"
        _make(Path(folder) / "m.parquet", output, arguments.images, arguments.batch_size)
        part = overhead(json.loads((output / "_run" / "times.json").read_text())["buckets"])
        print(table(arguments.images, part, separation(*_vectors(str(output)))))


def captions(count: int) -> list[str]:
    """So many captions, no two the same as far as there are others."""
    pairs = [(thing, colour) for colour, thing in itertools.product(COLOURS, OBJECTS)]
    return [f"a {thing} on a {colour} background" for thing, colour in itertools.islice(itertools.cycle(pairs), count)]


def overhead(buckets: Sequence[dict[str, Any]]) -> float:
    """Of what prior and decoder take for the batches of a run, what the scores take beside it.

    Args:
        buckets: of `_run/times.json`.

    Raises:
        KandinskyBatchError: no batch was scored.
    """
    scored = [bucket for bucket in buckets if "scores" in bucket["seconds"]]
    if not scored:
        raise KandinskyBatchError("no batch of the run was scored")
    scores = sum(bucket["batches"] * bucket["seconds"]["scores"] for bucket in scored)
    rest = sum(bucket["batches"] * bucket["seconds"][name] for bucket in scored for name in ("prior", "decoder"))
    return float(scores / rest)


def separation(images: Array, texts: Array, own: Sequence[int]) -> Separation:
    """How well images know their captions.

    Args:
        images: (images, width), each of length 1.
        texts: (captions, width), each caption once.
        own: the caption of each image.
    """
    lengths = np.linalg.norm(texts, axis=1, keepdims=True)
    cosines = images.astype(np.float64) @ (texts / lengths).T
    is_own = np.zeros(cosines.shape, bool)
    is_own[np.arange(len(own)), own] = True
    mine, others = cosines[is_own], np.sort(cosines[~is_own])
    # Of each own cosine, the others that are lower, and half of those that are the same.
    lower = (np.searchsorted(others, mine, "left") + np.searchsorted(others, mine, "right")) / 2
    return Separation(float(mine.mean()), float(others.mean()), float(lower.mean() / len(others)))


def table(images: int, part: float, found: Separation) -> str:
    """What was found, in Markdown."""
    columns = ("images", "scores / (prior + decoder)", "cosine, own caption", "cosine, others'", "AUC")
    cells = (f"{images:,}", f"{part:.1%}", f"{found.own:.3f}", f"{found.others:.3f}", f"{found.auc:.3f}")
    return tables.table(columns, [cells])


def _make(manifest: Path, output: Path, images: int, batch_size: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = {"task": ["text2img"] * images, "prompt": captions(images), "seed": list(range(images))}
    pq.write_table(pa.table({"id": [str(i) for i in range(images)], **rows}), manifest)
    places = ("--manifest", str(manifest), "--output", str(output), "--checkpoint", "demo", "--no-report")
    settings = ("--height", "128", "--width", "128", "--steps", "8", "--prior-steps", "5")
    scored = ("--scores", "all", "--keep-clip", "--batch-size", str(batch_size))
    child.run_checked("the scored run", child.script("generate.py", *places, *settings, *scored))


def _vectors(output: str) -> tuple[Array, Array, list[int]]:
    """Embeddings of images and of their captions, and which caption is whose."""
    # Here: `--help` should not wait for them, nor for MindSpore.
    from manifests import storage
    from manifests.embeddings.clip_retrieval import read_folder
    from manifests.embeddings.kept_clip import FOLDER
    from workers.checkpoints.locations import PRIOR, local_folder
    from workers.device import device
    from workers.device.device import device_here

    kind = device_here("auto")
    device.take(kind)
    from workers.kandinsky import pipelines

    pieces = list(read_folder(storage.join(output, FOLDER)))
    words = [caption for metadata, _, _ in pieces for caption in metadata["caption"].to_pylist()]
    distinct = sorted(set(words))
    model = pipelines.ClipModel(local_folder("demo", pipelines.parameter_shapes, [PRIOR]), device.dtype(kind))
    images = np.concatenate([matrix for _, matrix, _ in pieces])
    return images, model.texts(distinct), [distinct.index(caption) for caption in words]
