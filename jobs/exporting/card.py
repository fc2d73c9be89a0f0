"""The card of a dataset for the Hugging Face Hub: YAML that the Hub reads, then what a person wants to know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import jinja2
import pyarrow as pa

from jobs.exporting.rows import resized
from jobs.exporting.target import Contents
from manifests.config import RunConfig

#: Pictures on the card, and pixels of their shorter side.
SAMPLES, _SIDE = 8, 192

#: Kinds of images that are counted on the card one by one.
_KINDS = 20

_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))


@dataclass(frozen=True)
class About:
    """What a person says of the dataset.

    Attributes:
        licence: as the Hub spells it, such as cc-by-4.0.
        title: of the card.
        name: under which it is loaded.
        choice: lines that say which rows these are; none for a whole output.
    """

    licence: str
    title: str
    name: str
    choice: Sequence[str]


def sample_pictures(pieces: Iterator[pa.Table], config: RunConfig) -> dict[str, tuple[str, bytes]]:
    """Small pictures for the card: name of the file -> what it shows, and its bytes."""
    small = config.model_copy(update={"image_format": "webp", "quality": 85})
    found = {}
    for row in (row for piece in pieces for row in piece.to_pylist()):
        record = {name: value for name, value in row.items() if name != "encoded"}
        found[f"samples/{row['key']}.webp"] = (row["caption"] or "", resized(row["encoded"], record, _SIDE, small)[0])
    return found


def make_card(
    about: About,
    contents: Contents,
    schema: pa.Schema,
    config: RunConfig,
    samples: Mapping[str, tuple[str, bytes]],
    versions: Mapping[str, str],
) -> bytes:
    """The card as UTF-8 text.

    Args:
        schema: of the index, whose fields are described.
        samples: of `sample_pictures`.
        versions: of packages, as the run has recorded them.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jobs.exporting", "."),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _cell
    kinds = sorted(contents.kinds.items(), key=lambda kind: (-kind[1], kind[0]))
    text = environment.get_template("card.md.j2").render(
        yaml=_yaml(about, contents),
        title=about.title,
        name=about.name,
        choice=about.choice,
        contents=contents,
        checkpoint=config.checkpoint.rstrip("/").rsplit("/", 1)[-1],
        mark=config.mark,
        samples=[{"alt": _alt(alt), "path": path} for path, (alt, _) in samples.items()],
        kinds=kinds[:_KINDS],
        more_kinds=sum(count for _, count in kinds[_KINDS:]),
        columns=[{"name": one.name, "type": str(one.type), "meaning": _meaning(one)} for one in schema],
        versions=", ".join(f"{name} {number}" for name, number in versions.items()),
    )
    return text.encode()


def _yaml(about: About, contents: Contents) -> str:
    from huggingface_hub import DatasetCardData

    size = next((words for most, words in _SIZES if contents.images < most), "n>10M")
    data = DatasetCardData(
        license=about.licence,
        pretty_name=about.title,
        task_categories=["text-to-image"],
        size_categories=[size],
        tags=["synthetic", "kandinsky-2.1"],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}],
    )
    return data.to_yaml()


def _meaning(column: pa.Field) -> str:
    return (column.metadata or {}).get(b"description", b"a column of the manifest").decode()


def _cell(text: str) -> str:
    """Text that ends no cell of a table."""
    return text.replace("\n", " ").replace("|", "\\|")


def _alt(text: str) -> str:
    """Text that ends no alternative text of a picture."""
    return "".join(letter if letter.isalnum() or letter in " ,.-" else " " for letter in text)[:120].strip()
