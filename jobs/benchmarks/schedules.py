"""How busy each schedule keeps many cards over hours, in simulated time: batches that take what they are said to take.

What is simulated is who waits for whom: the split of the cards, the prior's run-ahead, cards that load the other model,
pieces, calls that end unevenly, and the rows a second that one driver moves. Which schedule `auto` takes, with which
pieces and pools, is asked of the code that a run asks (jobs/schedule/arrange.py). `benchmark.py scale` runs the job.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.benchmarks import tables
from manifests.errors import UsageError

if TYPE_CHECKING:
    from manifests.planning.layout import PlannedShard

NAME = "schedules"
HELP = "how busy both schedules keep cards over hours, in simulated time"

#: Rows that one driver moves each second (infra/adr/0001-ray-data.md).
_ROWS_A_SECOND = 30

#: Batches that the prior may be ahead for each decoder (jobs/engine/elastic.py).
_AHEAD = 8

_BATCH_SIZE = 4


@dataclass(frozen=True)
class Run:
    """What is simulated: so many batches on so many cards, of which each takes so long in both stages.

    Attributes:
        share: of a batch's seconds, the prior's.
    """

    cards: int
    batches: int
    seconds: float
    share: float

    @property
    def prior(self) -> float:
        """Seconds of a batch in the prior."""
        return self.seconds * self.share

    @property
    def decoder(self) -> float:
        """Seconds of a batch in the decoder."""
        return self.seconds * (1 - self.share)

    @property
    def ideal(self) -> float:
        """Seconds on all cards, none of which ever waits."""
        return self.batches * self.seconds / self.cards

    # What a plan is asked for.

    @property
    def samples(self) -> int:
        """Images."""
        return self.batches * _BATCH_SIZE

    @property
    def shards(self) -> Sequence[PlannedShard]:
        """Nobody looks at them."""
        return ()


def add_options(options: argparse._ArgumentGroup) -> None:
    """The options of this sub-command."""
    options.add_argument("--cards", type=int, nargs="+", default=[8, 16, 64], metavar="N", help="of the cluster")
    options.add_argument("--hours", type=float, nargs="+", default=[1, 8], metavar="HOURS", help="of all cards")
    options.add_argument("--seconds", type=float, default=20, metavar="SECONDS", help="of one batch")
    options.add_argument(
        "--prior-share", type=float, nargs="+", default=[0.02, 0.085], metavar="PART", help="of a batch's seconds"
    )


def run(arguments: argparse.Namespace) -> None:
    """One line of the table for each size."""
    numbers = (*arguments.cards, *arguments.hours, arguments.seconds, *arguments.prior_share)
    if min(numbers) <= 0 or min(arguments.cards) < 2 or max(arguments.prior_share) >= 1:
        raise UsageError("options: give two cards or more, positive numbers, and --prior-share below 1")
    columns = (
        "cards",
        "hours",
        "prior",
        "one in eight",
        "best pools",
        "phases",
        "auto takes",
        "auto",
        "first images, min",
    )
    print(tables.head(columns, text=("auto takes",)))
    for hours, share, cards in itertools.product(arguments.hours, arguments.prior_share, arguments.cards):
        batches = round(hours * 3600 * cards / arguments.seconds)
        found = compare(Run(cards, batches, arguments.seconds, share))
        busy = [f"{value:.3f}" for value in (found.eighth, found.pools, found.phases)]
        auto = (found.chosen, f"{found.auto:.3f}", f"{found.first_images / 60:.1f}")
        print(tables.row((str(cards), f"{hours:g}", f"{share:.1%}", *busy, *auto)))


@dataclass(frozen=True)
class Compared:
    """Shares of all cards' time that is work, from the first call to the end of the last.

    Attributes:
        eighth: two pools, one card in eight the prior's; pools: the best two; phases: turns.
        chosen, auto: what `--schedule auto` takes, and its share.
        first_images: seconds from the first call until there are any, with that.
    """

    eighth: float
    pools: float
    phases: float
    chosen: str
    auto: float
    first_images: float


def compare(load: Run) -> Compared:
    """Simulate every schedule."""
    # Here: `--help` should not wait for it.
    from jobs.cost.work import DeviceTime
    from jobs.schedule.arrange import LOADING_S, arrange
    from manifests.config import RunConfig

    nodes = [{"NPU": load.cards, "CPU": 24 * load.cards}]
    time = DeviceTime(load.batches * load.prior, load.batches * load.decoder, "simulation")
    config = RunConfig(manifest=("m",), output="o", batch_size=_BATCH_SIZE)

    def arranged(schedule: str) -> tuple[str, float, float]:
        given = config.model_copy(update={"schedule": schedule})
        chosen = arrange(given, load, "ascend", nodes, time, lambda words: None)
        if chosen.name == "pools":
            return chosen.name, *pools(load, chosen.pools.prior.most, LOADING_S)
        pieces = math.ceil(load.samples / chosen.pieces.rows)
        return chosen.name, *phases(load, pieces, chosen.pieces.together, LOADING_S)

    eighth, _ = pools(load, _an_eighth(load.cards), LOADING_S)
    auto = arranged("auto")
    return Compared(
        eighth=load.ideal / eighth,
        pools=load.ideal / arranged("pools")[1],
        phases=load.ideal / arranged("phases")[1],
        chosen=auto[0],
        auto=load.ideal / auto[1],
        first_images=auto[2],
    )


def _an_eighth(cards: int) -> int:
    return min(range(1, cards), key=lambda n: max(1 / 8 / n, 7 / 8 / (cards - n)))


def pools(load: Run, prior: int, loading: float) -> tuple[float, float]:
    """Both pools at the same time: seconds from the first call to the last image, and to the first one.

    Args:
        prior: cards of the prior's; the decoder takes them when it is done.
        loading: seconds until they have its model.
    """
    decoders = load.cards - prior
    prior_done, _, _ = _pipeline(load, prior, [0.0] * decoders)
    # What happens when the prior is done changes nothing of what it has done.
    _, end, first = _pipeline(load, prior, [0.0] * decoders + [prior_done + loading] * prior)
    return end, first


def _pipeline(load: Run, prior: int, decoders: Sequence[float]) -> tuple[float, float, float]:
    """When the prior is done, the last image there, and the first; decoders are there from these times on."""
    embedding, decoding = [0.0] * prior, sorted(decoders)
    ahead = _AHEAD * sum(start == 0 for start in decoders)
    done: list[float] = []
    last_embedded = 0.0
    for batch in range(load.batches):
        room = done[batch - ahead] if batch >= ahead else 0.0
        embedded = max(heapq.heappop(embedding), room) + load.prior
        heapq.heappush(embedding, embedded)
        last_embedded = max(last_embedded, embedded)
        done.append(max(heapq.heappop(decoding), embedded) + load.decoder)
        heapq.heappush(decoding, done[-1])
    return last_embedded, max(done), min(done)


def phases(load: Run, pieces: int, together: int, loading: float) -> tuple[float, float]:
    """One stage after the other: seconds from the first call to the last image, and to the first one."""
    now = first = 0.0
    for number, batches in enumerate(_shared(load.batches, pieces)):
        now = _phase(load.cards, _shared(batches, math.ceil(batches / together)), load.prior, now) + loading
        first = first or now + load.decoder
        now = _phase(load.cards, itertools.repeat(1, batches), load.decoder, now)
        now += loading if number < pieces - 1 else 0.0
    return now, first


def _shared(batches: int, parts: int) -> Iterator[int]:
    """So many batches in parts of about the same size."""
    return (batches * (part + 1) // parts - batches * part // parts for part in range(parts))


def _phase(cards: int, rows: Iterator[int], seconds: float, start: float) -> float:
    """When all cards are done with rows of so many batches each."""
    free = [start] * cards
    for number, batches in enumerate(rows):
        begin = max(heapq.heappop(free), start + number / _ROWS_A_SECOND)
        heapq.heappush(free, begin + batches * seconds)
    return max(free)
