"""Stage 5, pairs: the UNet learns on, mostly on pictures with two objects.

There are 552 ordered pairs, each on eleven grounds and beside or above another: of those that the first stage sees
it had learned the pictures, and not what two objects look like that stand together.
"""

from __future__ import annotations

from pathlib import Path

from infra.demo_checkpoint import configs, unet


def train(folder: Path, budget: configs.Budget) -> None:
    """Train; the result is `pairs.result` in the folder, samples are in `pairs.png`."""
    unet.learn(
        "pairs", folder, budget, steps=budget.pairs, square=budget.pairs_square, rate=5e-4, pairs=0.6, first="unet"
    )
