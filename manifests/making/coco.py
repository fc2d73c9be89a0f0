"""The source of a manifest that is COCO's captions: all of them, or a sample such as the one called COCO-30k."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from manifests import storage
from manifests.errors import ManifestError
from manifests.making.tables import Source, Stream, chunks

#: Image, caption, and its text.
Caption = tuple[int, int, str | None]

_COLUMNS = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("prompt", pa.string()),
        pa.field("image_id", pa.int64()),
        pa.field("caption_id", pa.int64()),
        pa.field("file_name", pa.string()),
    ]
)


def coco(url: str, sample: int | None, seed: int) -> Stream:
    """Captions of a COCO annotation file: `id`, `prompt`, and `image_id`, `caption_id`, `file_name` for evaluation.

    Args:
        sample: so many images, drawn without replacement, each with one of its captions; None: every caption.
        seed: of the draw (NumPy's default generator).

    Raises:
        ManifestError: the file is something else, or has fewer images.
    """
    try:
        content = json.loads(storage.read_bytes(url))
        names = {image["id"]: image.get("file_name") for image in content.get("images", ())}
        captions = [(c["image_id"], c["id"], _text(c["caption"])) for c in content["annotations"]]
        captions.sort(key=lambda caption: caption[:2])
    except FileNotFoundError:
        raise ManifestError(f"{url}: no such file") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestError(
            f"{url}: not COCO captions ({type(error).__name__}: {error}); give captions_val2014.json or its like"
        ) from error
    if sample is not None:
        by_image: dict[int, list[Caption]] = defaultdict(list)
        for caption in captions:
            if caption[2] is not None:
                by_image[caption[0]].append(caption)
        if sample > len(by_image):
            raise ManifestError(f"{url}: it has captions of {len(by_image)} images, so --sample {sample} cannot be had")
        rng = np.random.default_rng(seed)
        drawn = rng.choice(np.array(sorted(by_image)), sample, replace=False).tolist()
        captions = [by_image[image][rng.integers(len(by_image[image]))] for image in drawn]
    return Stream(_COLUMNS, _tables(url, captions, names))


def _text(caption: object) -> str | None:
    """A caption's text; a row without one is written too, and cannot be made."""
    return None if caption is None else str(caption).strip()


def _tables(url: str, captions: Sequence[Caption], names: Mapping[int, str]) -> Iterator[Source]:
    row = 0
    for chunk in chunks(captions):
        image_ids, caption_ids, prompts = zip(*chunk, strict=True)
        columns = {
            "id": [f"coco-{number}" for number in caption_ids],
            "prompt": list(prompts),
            "image_id": list(image_ids),
            "caption_id": list(caption_ids),
            "file_name": pa.array([names.get(image) for image in image_ids], pa.string()),
        }
        yield Source(pa.table(columns, schema=_COLUMNS), url, row)
        row += len(chunk)
