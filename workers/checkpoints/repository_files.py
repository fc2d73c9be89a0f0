"""Which files of a checkpoint's repository are needed, and whether a copy of them is whole.

Names are paths inside one repository (`unet/config.json`), as the Hugging Face Hub lays it out.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Components that are no models and so have no weights.
WITHOUT_WEIGHTS = frozenset({"tokenizer", "scheduler"})

#: One file of weights, or the index of several. A further dot marks a variant (`model.fp16.safetensors`), and other
#: endings hold the same weights for other frameworks; mindone reads none of them.
_WEIGHTS = re.compile(r"[^./]+\.safetensors(\.index\.json)?")
_TEXTS = re.compile(r"([^./]+\.(json|txt)|[^/]+\.model)")
_SHARD = re.compile(r"(?P<stem>.+)-\d+-of-(?P<count>\d+)\.safetensors")

#: No header of safetensors is longer.
_LONGEST_HEADER = 100 << 20


@dataclass(frozen=True)
class Listed:
    """What a store says of a file.

    Attributes:
        size: in bytes; None where the store does not say.
        version: changes whenever the content does.
        sha256: hex digits; None where the store does not say.
    """

    size: int | None
    version: str
    sha256: str | None = None


def needed(names: Iterable[str]) -> list[str]:
    """Those that mindone loads, sorted: without the weights of other frameworks, variants, pictures and papers."""
    return sorted(name for name in names if _is_needed(name))


def _is_needed(name: str) -> bool:
    component, slash, file = name.partition("/")
    if not slash:
        return name == "model_index.json"
    return not component.startswith(".") and bool(_WEIGHTS.fullmatch(file) or _TEXTS.fullmatch(file))


def lacking(names: Iterable[str], components: Sequence[str]) -> list[str]:
    """What a repository must hold and does not: components, or files of theirs.

    Args:
        names: of the files that are there.
        components: that the repository must have.
    """
    there = set(needed(names))
    missing = [] if "model_index.json" in there else ["model_index.json"]
    for component in components:
        files = {name for name in there if name.startswith(f"{component}/")}
        if not files:
            missing.append(component)
        elif component not in WITHOUT_WEIGHTS:
            missing += [] if f"{component}/config.json" in files else [f"{component}/config.json"]
            missing += _lacking_weights(component, files)
    return missing


def _lacking_weights(component: str, files: set[str]) -> list[str]:
    weights = {name for name in files if name.endswith(".safetensors")}
    if not weights:
        return [f"{component}/*.safetensors"]
    shards = [match for name in weights if (match := _SHARD.fullmatch(name))]
    expected = {
        f"{shard['stem']}-{number:05d}-of-{shard['count']}.safetensors"
        for shard in shards
        for number in range(1, int(shard["count"]) + 1)
    }
    return sorted(expected - weights)


def names_in(folder: Path) -> list[str]:
    """Names of the files in a copy of a repository."""
    return [path.relative_to(folder).as_posix() for path in folder.glob("*") if path.is_file()] + [
        path.relative_to(folder).as_posix() for path in folder.glob("*/*") if path.is_file()
    ]


def damaged(folder: Path, listed: Mapping[str, Listed] | None = None) -> dict[str, str]:
    """Files of a copy that cannot be what they should be, each with the reason; reads a few kB of each.

    Args:
        folder: the copy.
        listed: the files that it should have; None: those that are there, of which weights tell their own size.
    """
    found: dict[str, str] = {}
    for name in needed(listed if listed is not None else names_in(folder)):
        path = folder / name
        size = listed[name].size if listed is not None else None
        if not path.is_file():
            found[name] = "is missing"
        elif size is not None and path.stat().st_size != size:
            found[name] = f"has {path.stat().st_size} bytes, not {size}"
        elif (reason := _broken_weights(path) if name.endswith(".safetensors") else None) is not None:
            found[name] = reason
    return found


def elements(folder: Path) -> int:
    """How many numbers the weights of a component are, by the headers of its files; 0 where there are none to read."""
    headers = [_header(path) for path in folder.glob("*.safetensors") if _WEIGHTS.fullmatch(path.name)]
    return sum(header[0] for header in headers if header is not None)


def _broken_weights(path: Path) -> str | None:
    """Why a safetensors file cannot be read whole: its header says where its last tensor ends."""
    header = _header(path)
    if header is None:
        return "is no safetensors file"
    size, (_, whole) = path.stat().st_size, header
    return None if size == whole else f"has {size} bytes, not {whole}"


def _header(path: Path) -> tuple[int, int] | None:
    """Numbers in a safetensors file, and the bytes that it has when it is whole; None where it is no such file."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
                raise ValueError
            tensors = [entry for name, entry in json.loads(file.read(length)).items() if name != "__metadata__"]
            numbers = sum(math.prod(entry["shape"]) for entry in tensors)
            return numbers, 8 + length + max((entry["data_offsets"][1] for entry in tensors), default=0)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


def sha256(path: Path) -> str:
    """Hex digits of a file's SHA-256."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(4 << 20):
            digest.update(piece)
    return digest.hexdigest()


def in_words(problems: Mapping[str, str]) -> str:
    """The first of some damaged files, and how many there are more."""
    name, reason = next(iter(problems.items()))
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{name} {reason}{more}"
