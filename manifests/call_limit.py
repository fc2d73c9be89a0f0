"""How many samples one device call may have: two bounds, rows and pixels, and the plan keeps to both."""

from __future__ import annotations

from typing import NamedTuple


class CallLimit(NamedTuple):
    """The bounds of a call.

    Attributes:
        rows: samples, of whatever size.
        pixels: of all images together; None for any number.
    """

    rows: int
    pixels: int | None = None

    def of(self, height: int, width: int) -> int:
        """Samples that a call of this size may have; one always may, because an image is not divided."""
        if self.pixels is None:
            return self.rows
        return max(1, min(self.rows, self.pixels // (height * width)))

    def __str__(self) -> str:
        pixels = "" if self.pixels is None else f" and {self.pixels:,} pixels"
        return f"{self.rows} images{pixels}"
