"""How much each preset of a search tries.

Sized for an image model of about 20 million multiplications with additions, 60 000 samples and two cores, where
one epoch of a student of a third of the width takes 12 to 20 seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgemill.recipe import Preset

MINUTE = 60.0


@dataclass(frozen=True)
class Extent:
    """What a preset fills in where the recipe is silent.

    Attributes:
        trials: most chains that are tried.
        time_budget_s: no trial starts after this many seconds.
        width, keep, sparsity, clusters: choices, the first is where the search begins.
        distill, channels, prune, cluster, qat: epochs of each stage.
        short: share of the epochs after which a new student is judged; None: every student is trained in full, as
            with few students the short trainings cost more than they save.
    """

    trials: int
    time_budget_s: float
    width: tuple[float, ...]
    keep: tuple[float, ...]
    sparsity: tuple[float, ...]
    clusters: tuple[int, ...]
    distill: int
    channels: int
    prune: int
    cluster: int
    qat: int
    short: float | None


EXTENTS: Mapping[Preset, Extent] = {
    Preset.FAST: Extent(
        trials=3,
        time_budget_s=5 * MINUTE,
        width=(0.25,),
        keep=(1.0,),
        sparsity=(0.0,),
        clusters=(0,),
        distill=16,
        channels=4,
        prune=2,
        cluster=1,
        qat=1,
        short=None,
    ),
    Preset.DEFAULT: Extent(
        trials=20,
        time_budget_s=42 * MINUTE,
        width=(0.25, 1 / 6, 1 / 3),
        keep=(1.0,),
        sparsity=(0.0, 0.5),
        clusters=(0, 5, 7, 16),
        distill=24,
        channels=8,
        prune=4,
        cluster=2,
        qat=2,
        short=None,
    ),
    Preset.THOROUGH: Extent(
        trials=96,
        time_budget_s=8 * 60 * MINUTE,
        width=(1 / 3, 0.2, 0.25, 0.4, 0.5, 0.75),
        keep=(1.0, 0.7, 0.5),
        sparsity=(0.0, 0.5, 0.7, 0.8),
        clusters=(0, 8, 16, 32, 64),
        distill=60,
        channels=16,
        prune=8,
        cluster=4,
        qat=4,
        short=0.25,
    ),
}
