"""Which models of a run are compiled (`--graph`), and for which shapes; the driver chooses, the actors do it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from manifests.batch import Bucket


class GraphChoice(BaseModel):
    """What is compiled.

    Attributes:
        prior: the prior, for whatever comes.
        decoder: shapes (`Bucket.shape`) that the UNet is compiled for; None: for all.
        movq: MoVQ is compiled beside the UNet.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prior: bool
    decoder: frozenset[str] | None
    movq: bool

    def decodes(self, bucket: Bucket) -> bool:
        """True where the decoder runs a bucket as graphs."""
        return self.decoder is None or bucket.shape in self.decoder

    @property
    def compiles_decoder(self) -> bool:
        """True where any shape of the decoder is compiled."""
        return self.decoder is None or bool(self.decoder)

    @property
    def any(self) -> bool:
        """True where anything is compiled."""
        return self.prior or self.compiles_decoder


#: `--graph on`, and `--graph off`.
EVERYTHING = GraphChoice(prior=True, decoder=None, movq=True)
NOTHING = GraphChoice(prior=False, decoder=frozenset(), movq=False)
