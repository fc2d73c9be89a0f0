"""Encode stage (CPU): pixels to image files that carry how they were made.

The provenance is the text that image tools already read (the `parameters` text of A1111's web UI): prompt,
negative prompt, then one line of `Key: value` pairs. PNG holds it as the text chunk `parameters`, JPEG and
WebP hold it in EXIF as UserComment, in the encoding those tools expect, and as ImageDescription. With `mark` all three
say in XMP that a model has made the image, the way IPTC words it. The bytes depend on pixels, record and config only;
there are no times in them.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from PIL import ExifTags, Image, PngImagePlugin

from manifests.batch import Batch
from manifests.config import RunConfig
from manifests.errors import RowError
from manifests.records import RECORD_NAMES

#: Measured on 512 px images: a photograph takes 3/5 of the default level's time and has the same size.
PNG_COMPRESS_LEVEL = 4

# EXIF must fit one JPEG segment of 64 kB; a longer text has its prompts cut, so that the settings always
# stay.
_EXIF_CHARACTERS = 6_000
_EXIF_PROMPT_CHARACTERS = 1_500

#: IPTC's word for an image that a trained model has made. An inpainting too comes out of the decoder pixel by pixel.
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

_XMP = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
<Iptc4xmpExt:DigitalSourceType>{DIGITAL_SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>
</rdf:Description>
</rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


def encode_images(batch: Batch, config: RunConfig) -> Batch:
    """Turn `pixels` into files.

    Args:
        batch: pending samples have `pixels`, raw uint8 RGB of the bucket's (height, width, 3).
        config: `image_format` and `quality`.

    Returns:
        The batch with `encoded` (large_binary, the file's bytes) and `sha256` (of those bytes, hex), without
        `pixels`. Samples whose pixels are missing, too few or refused by the codec are `failed_to_encode`.
    """
    encoded: dict[int, bytes] = {}
    errors: dict[int, RowError] = {}
    if batch.bucket is not None and batch.pending:
        pending = batch.pending
        pixels = batch.values("pixels", pending)
        names = [name for name in RECORD_NAMES if name in batch.samples.column_names]
        records = batch.samples.select(names).take(pa.array(pending, pa.int64())).to_pylist()
        for position, raw, record in zip(pending, pixels, records, strict=True):
            try:
                image = _image(raw, batch.bucket.width, batch.bucket.height)
                encoded[position] = encode_image(image, record, config)
            except RowError as error:
                errors[position] = error
            except Exception as error:
                errors[position] = RowError(
                    "failed_to_encode",
                    f"the image cannot be written as {config.image_format} ({type(error).__name__}: {error})",
                )
    hashes = {position: hashlib.sha256(data).hexdigest() for position, data in encoded.items()}
    done = batch.add("encoded", pa.large_binary(), encoded).add("sha256", pa.string(), hashes)
    return done.drop(["pixels"]).fail(errors)


def encode_image(image: Image.Image, record: Mapping[str, Any], config: RunConfig) -> bytes:
    """The bytes of one RGB image as a file with its record as provenance, marked as generated with `config.mark`."""
    sink = io.BytesIO()
    if config.image_format == "png":
        info = PngImagePlugin.PngInfo()
        # Pillow picks the Latin-1 chunk where the text fits it and the UTF-8 one otherwise; readers take
        # both.
        info.add_text("parameters", parameters_text(record))
        if config.mark:
            info.add_itxt("XML:com.adobe.xmp", _XMP)
        image.save(sink, "PNG", pnginfo=info, compress_level=PNG_COMPRESS_LEVEL)
        return sink.getvalue()
    metadata: dict[str, Any] = {"exif": _exif(record)}
    if config.mark:
        metadata["xmp"] = _XMP.encode()
    if config.image_format == "jpg":
        subsampling = _subsampling(config.quality)
        image.save(sink, "JPEG", quality=config.quality, subsampling=subsampling, **metadata)
    else:
        image.save(sink, "WEBP", quality=config.quality, method=4, **metadata)
    return sink.getvalue()


def parameters_text(record: Mapping[str, Any], longest_prompt: int | None = None) -> str:
    """Provenance of a sample as text.

    Args:
        record: values of RECORD_FIELDS; missing ones and nulls are left out.
        longest_prompt: cut both prompts to so many characters.

    Returns:
        The prompt's line (for an interpolation its texts), `Negative prompt: …` where there is one (also ""),
        and the settings. `Seed` and `Image index` together fix the noise.
    """
    lines = [_clean(record.get("caption") or record.get("prompt") or "", longest_prompt)]
    negative = record.get("negative_prompt")
    if negative is not None:
        lines.append(f"Negative prompt: {_clean(negative, longest_prompt)}")
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in _settings(record) if value is not None))
    return "\n".join(lines)


def _settings(record: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Keys as A1111 spells them where it has them, in its order; then ours."""
    get = record.get
    conditions = get("conditions")
    size = None if get("width") is None or get("height") is None else f"{get('width')}x{get('height')}"
    return [
        ("Steps", get("steps")),
        ("Sampler", "DDIM"),
        ("CFG scale", get("guidance_scale")),
        ("Seed", get("seed")),
        ("Size", size),
        ("Model", _model_name(get("checkpoint"))),
        ("Denoising strength", get("strength")),
        ("Task", get("task")),
        ("Image index", get("image_index")),
        ("Prior steps", get("prior_steps")),
        ("Prior CFG scale", get("prior_guidance_scale")),
        ("Conditions", json.dumps(conditions, ensure_ascii=False) if conditions else None),
        ("ID", get("id")),
    ]


def _quoted(value: Any) -> str:
    """A value as that format writes it: whole floats without `.0`, JSON quotes where they are needed."""
    text = repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
    needs_quotes = not text or any(mark in text for mark in ',:"\n\r')
    return json.dumps(text, ensure_ascii=False) if needs_quotes else text


def _clean(text: str, longest: int | None) -> str:
    # A zero byte ends a PNG text early.
    text = text.replace("\x00", " ")
    return text if longest is None or len(text) <= longest else f"{text[:longest]}…"


def _model_name(checkpoint: str | None) -> str | None:
    """Last part of the checkpoint's location: images travel further than the paths of a cluster should."""
    return checkpoint.rstrip("/").rsplit("/", 1)[-1] if checkpoint else None


def _exif(record: Mapping[str, Any]) -> Image.Exif:
    text = parameters_text(record)
    if len(text) > _EXIF_CHARACTERS:
        text = parameters_text({**record, "conditions": None}, _EXIF_PROMPT_CHARACTERS)
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = text.encode("utf-8")
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\x00" + text.encode("utf-16-be")
    return exif


def _subsampling(quality: int) -> str:
    """Full colour resolution at high quality, where halving it would be the largest loss."""
    return "4:4:4" if quality >= 90 else "4:2:0"


def _image(raw: bytes | None, width: int, height: int) -> Image.Image:
    if raw is None:
        raise RowError("failed_to_encode", "the decoder left no pixels for this sample")
    if len(raw) != width * height * 3:
        raise RowError(
            "failed_to_encode",
            f"the decoder left {len(raw)} bytes; RGB of {width} x {height} has {width * height * 3}",
        )
    return Image.frombuffer("RGB", (width, height), raw, "raw", "RGB", 0, 1)
