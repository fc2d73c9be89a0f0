"""LAION's aesthetic predictor: how well people like an image, 1 to 10, from CLIP's embedding of it.

It is linear layers with nothing but dropout between them, which does nothing outside of training, so all of it is one
vector and one number. A run keeps these in its output: workers on other nodes, later starts and `score.py` need no
weights again, and the scores of one output are all by the same ones.

    OUTPUT/_run/aesthetic.json     {"source": …, "vector": […], "bias": …}
"""

from __future__ import annotations

import io
import itertools
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from manifests import storage
from manifests.commit import sealed_shards, staged_parts
from manifests.config import RunConfig
from manifests.errors import StorageError, UsageError
from manifests.scores import AESTHETIC
from workers.checkpoints.locations import prior_setting
from workers.scoring.torch_file import read_torch

Array = npt.NDArray[Any]

FILE = "_run/aesthetic.json"

_OPTION = "option --aesthetic-weights"

#: Name of a tensor: what comes before, a layer's number if there is one, and which of the two it is.
_NAME = re.compile(r"^(?:.*?\.)?(?:(\d+)\.)?(weight|bias)$")

#: Layers that may lie between two linear ones: a dropout. With an activation as well it is another predictor.
_BETWEEN = 1


@dataclass(frozen=True)
class Predictor:
    """Vector (width,) and number, float64; and the file that it was read from."""

    vector: Array
    bias: float
    source: str = ""

    def __call__(self, embedding: Array | None) -> float | None:
        """What it says of CLIP's vector (width,) of any length; None where that has no direction or is not finite."""
        if embedding is None:
            return None
        exact = embedding.astype(np.float64)
        length = float(np.linalg.norm(exact))
        if not np.isfinite(length) or length == 0:
            return None
        return float(self.vector @ (exact / length)) + self.bias


def fold(tensors: Mapping[str, Array]) -> Predictor:
    """The layers as one: each tensor `….N.weight` (out, in) or `….N.bias` (out,), in the order of N; the last out is 1.

    Raises:
        ValueError: the tensors are not such a chain.
    """
    layers: dict[int, dict[str, Array]] = {}
    for name, tensor in tensors.items():
        match = _NAME.match(name)
        if match is None:
            raise ValueError(f"{name!r} is not the weight or bias of a numbered layer")
        layers.setdefault(int(match[1] or 0), {})[match[2]] = np.asarray(tensor, np.float64)
    numbers = sorted(layers)
    if not numbers or any(set(layer) != {"weight", "bias"} for layer in layers.values()):
        raise ValueError("it has no layers with a weight and a bias each")
    if any(after - before - 1 > _BETWEEN for before, after in itertools.pairwise(numbers)):
        raise ValueError(
            f"its layers {', '.join(map(str, numbers))} leave room for activations between them; the predictor that "
            "can be used has linear layers only"
        )
    first = layers[numbers[-1]]["weight"]
    matrix, bias = np.eye(len(first)), np.zeros(len(first))
    for number in reversed(numbers):
        weight, offset = layers[number]["weight"], layers[number]["bias"]
        if weight.ndim != 2 or offset.shape != weight.shape[:1] or matrix.shape[1] != len(weight):
            raise ValueError(
                f"layer {number} is {weight.shape} with a bias of {offset.shape}, and does not fit the others"
            )
        matrix, bias = matrix @ weight, matrix @ offset + bias
    if len(matrix) != 1:
        raise ValueError(f"its last layer gives {len(matrix)} numbers, and a score is one")
    if not (np.isfinite(matrix).all() and np.isfinite(bias).all()):
        raise ValueError("some of its numbers are not finite")
    return Predictor(matrix[0], float(bias[0]))


def read_weights(url: str) -> Predictor:
    """The predictor of a file: .safetensors, .npz, or .pth and .pt of PyTorch, of which nothing is executed.

    Raises:
        UsageError: there is no such file, or no such predictor in it.
    """
    kind = PurePosixPath(url.partition("?")[0]).suffix.lower()
    readers = {".safetensors": safetensors.numpy.load, ".npz": _arrays, ".pth": read_torch, ".pt": read_torch}
    if kind not in readers:
        raise UsageError(f"{_OPTION}: {url} should end in {', '.join(readers)}")
    try:
        return replace(fold(readers[kind](storage.read_bytes(url))), source=url)
    except FileNotFoundError as error:
        raise UsageError(f"{_OPTION}: there is no file {url}") from error
    except (OSError, StorageError) as error:
        raise UsageError(f"{_OPTION}: {url} cannot be read ({error})") from error
    except (ValueError, zipfile.BadZipFile, safetensors.SafetensorError) as error:
        raise UsageError(f"{_OPTION}: {url} is not an aesthetic predictor of LAION's kind: {error}") from error


def _arrays(data: bytes) -> dict[str, Array]:
    loaded = np.load(io.BytesIO(data), allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        raise ValueError("it holds one array without a name")
    with loaded:
        return {name: loaded[name] for name in loaded.files}


def kept(output_url: str) -> Predictor | None:
    """The predictor of an output; None where it has none.

    Raises:
        StorageError: it cannot be read.
    """
    url = storage.join(output_url, FILE)
    try:
        record = json.loads(storage.read_bytes(url))
        return Predictor(np.array(record["vector"], np.float64), float(record["bias"]), record["source"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{url} cannot be read ({error!r})") from error


def settled(config: RunConfig) -> Predictor | None:
    """The predictor that an output is scored by: its own, or for a new one that of the weights; writes nothing.

    Returns:
        None where the score is not asked for.

    Raises:
        UsageError: there are no weights, they do not fit the checkpoint's CLIP, or images have scores by others.
        StorageError: the output or the checkpoint cannot be reached.
    """
    if AESTHETIC not in config.score_names:
        return None
    own, given = kept(config.output), config.aesthetic_weights
    if own is not None and given in (None, own.source):
        return own
    if given is None:
        raise UsageError(
            f"option --scores: {AESTHETIC} needs --aesthetic-weights, the file of LAION's predictor "
            "(improved-aesthetic-predictor, sac+logos+ava1-l14-linearMSE.pth)"
        )
    predictor = read_weights(given)
    if own is not None and _same(own, predictor):
        return own
    if own is not None and (sealed_shards(config.output) or staged_parts(config.output)):
        raise UsageError(f"{_OPTION}: {config.output} has scores by other weights, those of {own.source}")
    width = prior_setting(config.checkpoint, "image_encoder", "projection_dim")
    if width is not None and len(predictor.vector) != width:
        raise UsageError(
            f"{_OPTION}: {given} is for embeddings of {len(predictor.vector)} numbers, and the CLIP of "
            f"{config.checkpoint} gives {width}"
        )
    return predictor


def _same(one: Predictor, other: Predictor) -> bool:
    return one.bias == other.bias and np.array_equal(one.vector, other.vector)


def keep(predictor: Predictor | None, config: RunConfig) -> None:
    """Write what `settled` gave into the output, where it is not there yet.

    Raises:
        StorageError: the storage refused.
    """
    if predictor is None:
        return
    own = kept(config.output)
    if own is None or not _same(own, predictor):
        content = {"source": predictor.source, "vector": predictor.vector.tolist(), "bias": predictor.bias}
        storage.write_atomic(storage.join(config.output, FILE), json.dumps(content).encode() + b"\n")
