"""What a person asks for: when two images are near duplicates, and which of several is the best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jobs.ranking import hashes
from manifests.errors import UsageError
from manifests.rankings import DUPLICATE_GROUP, DUPLICATE_RANK, RANK_IN_REQUEST

#: What `--duplicates` takes, in words.
FORM = "image_phash:BITS, clip:COSINE, or both with a comma between"


@dataclass(frozen=True)
class Rules:
    """When images are near duplicates of each other, and by what they are ordered.

    Attributes:
        bits: that two perceptual hashes may differ in; None: they are not compared.
        cosine: that two embeddings are above; None: they are not compared.
        best_by: column whose highest value comes first among near duplicates; None: the smallest key does.
        best_of_request: column by which the images of a request are ordered; None: they are not.
    """

    bits: int | None = None
    cosine: float | None = None
    best_by: str | None = None
    best_of_request: str | None = None

    @property
    def compares(self) -> bool:
        """Near duplicates are looked for."""
        return self.bits is not None or self.cosine is not None

    @property
    def columns(self) -> tuple[str, ...]:
        """Of the index, that come of it."""
        duplicates = (DUPLICATE_GROUP, DUPLICATE_RANK) if self.compares else ()
        return (*duplicates, *((RANK_IN_REQUEST,) if self.best_of_request is not None else ()))

    def told(self) -> Mapping[str, object]:
        """What is kept beside the columns."""
        found = [f"image_phash:{self.bits}"] if self.bits is not None else []
        found += [f"clip:{self.cosine:g}"] if self.cosine is not None else []
        duplicates = {"duplicates": ",".join(found), "best_by": self.best_by} if found else {}
        return duplicates | ({} if self.best_of_request is None else {"best_of_request": self.best_of_request})


def parse(duplicates: str | None, best_by: str | None, best_of_request: str | None) -> Rules:
    """Rules as a command line spells them.

    Raises:
        UsageError: they are of no use.
    """
    if best_by is not None and duplicates is None:
        raise UsageError("option --best-by: goes with --duplicates only; --best-of-request orders those of a request")
    bits: int | None = None
    cosine: float | None = None
    for words in () if duplicates is None else duplicates.split(","):
        name, _, value = words.strip().partition(":")
        try:
            if name == "image_phash" and bits is None:
                bits = int(value)
            elif name == "clip" and cosine is None:
                cosine = float(value)
            else:
                raise ValueError(name)
        except ValueError:
            raise UsageError(f"option --duplicates: should be {FORM}; got {duplicates!r}") from None
    if bits is not None and not 0 <= bits <= hashes.MOST:
        raise UsageError(f"option --duplicates: image_phash takes 0 to {hashes.MOST} bits of {hashes.BITS}; got {bits}")
    if cosine is not None and not 0 < cosine < 1:
        raise UsageError(f"option --duplicates: clip takes a cosine between 0 and 1, such as 0.95; got {cosine:g}")
    return Rules(bits, cosine, best_by, best_of_request)
