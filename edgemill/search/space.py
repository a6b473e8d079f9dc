"""The space of a search: choices of every knob, which combinations are valid, and where to begin."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from edgemill.errors import RecipeError
from edgemill.recipe import PruneMethod, Scheme, Search, Stages, Wider
from edgemill.recipe.stages import undoes_clusters
from edgemill.search.knobs import NAMES, NEUTRAL_SHARE, UNORDERED, Knobs
from edgemill.search.presets import Extent

_SHARED_WEIGHTS_SURVIVE = frozenset({Scheme.INT8_STATIC, Scheme.INT8_QAT, Scheme.INT8_MIXED, Scheme.INT8_DYNAMIC})


@dataclass(frozen=True)
class Choices:
    """Values of every knob, ascending; schemes and fallback sets in the recipe's order."""

    width: tuple[float, ...]
    keep: tuple[float, ...]
    sparsity: tuple[float, ...]
    clusters: tuple[int, ...]
    scheme: tuple[Scheme, ...]
    fallback: tuple[tuple[Wider, ...], ...]

    def index(self, knobs: Knobs) -> tuple[int, ...]:
        """Place of every knob among its choices, in the order of `NAMES`."""
        return tuple(getattr(self, name).index(getattr(knobs, name)) for name in NAMES)

    @property
    def open(self) -> tuple[str, ...]:
        """Knobs with more than one choice."""
        return tuple(name for name in NAMES if len(getattr(self, name)) > 1)


def refusal(knobs: Knobs, stages: Stages, trainable: bool, formats: Collection[Scheme] | None) -> str | None:
    """Why a chain is not valid, None if it is."""
    student = None if stages.distill is None else stages.distill.student
    built = student is not None and (student.function is not None or student.family is not None)
    if formats is not None and knobs.scheme not in formats:
        return f"no target runs {knobs.scheme}"
    if knobs.clusters and (reason := _undone(knobs, stages)) is not None:
        return reason
    if stages.prune is not None and stages.prune.method is PruneMethod.N_M and knobs.sparsity not in (0, 0.5):
        return "2:4 pruning always zeroes half of the weights"
    if knobs.width != NEUTRAL_SHARE and not (trainable or built):
        return "the checkpoint cannot be trained, so it cannot be narrowed"
    can_train = trainable or (built and (knobs.width != NEUTRAL_SHARE or fixed_student(stages)))
    if not can_train and (knobs.sparsity or knobs.clusters or knobs.scheme is Scheme.INT8_QAT):
        return "the checkpoint cannot be trained, so it cannot be pruned, clustered or trained under quantization"
    return None


# -- choices -------------------------------------------------------------------------------------


def _undone(knobs: Knobs, stages: Stages) -> str | None:
    """Why clustering would be for nothing, None if it is not."""
    if knobs.scheme not in _SHARED_WEIGHTS_SURVIVE:
        return f"shared weights do not survive {knobs.scheme}"
    return undoes_clusters(stages.quantize)


def fixed_student(stages: Stages) -> bool:
    """Whether the student is the user's own function, which has no width."""
    return stages.distill is not None and stages.distill.student.function is not None


def choices_of(search: Search, stages: Stages, extent: Extent) -> Choices:
    """The space's choices; where it has none, the preset's and the value of the recipe's own stages.

    Raises:
        RecipeError: widths are given for a student that has none.
    """
    space, quantize = search.space, stages.quantize
    own = own_chain(stages, extent)
    if fixed_student(stages) and space.width not in (None, (NEUTRAL_SHARE,)):
        raise RecipeError(
            "A student function has no width that could be searched.",
            where="search.space.width",
            expected="to be left out with stages.distill.student.function",
            got=str(list(space.width or ())),
        )
    width = (NEUTRAL_SHARE,) if fixed_student(stages) else space.width or _joined(extent.width, own.width)
    wider = quantize.mixed.wider if Scheme.INT8_MIXED in quantize.schemes else ()
    return Choices(
        width=_ascending(width),
        keep=_ascending(space.keep or _joined(extent.keep, own.keep)),
        sparsity=_ascending(space.sparsity or _joined(extent.sparsity, own.sparsity)),
        clusters=tuple(int(count) for count in _ascending(space.clusters or _joined(extent.clusters, own.clusters))),
        scheme=quantize.schemes,
        fallback=((), *((item,) for item in wider if len(wider) > 1)),
    )


def _joined(preset: Iterable[float], own: float) -> tuple[float, ...]:
    """The preset's choices and the recipe's own; of two that would have the same name, the recipe's."""
    return (*(value for value in preset if f"{value:.3g}" != f"{own:.3g}"), own)


def _ascending(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(sorted(set(values)))


def combinations(choices: Choices) -> Iterator[Knobs]:
    """Every combination, valid or not, in the order of the chain."""
    for width, keep, sparsity, clusters, scheme, fallback in product(
        choices.width, choices.keep, choices.sparsity, choices.clusters, choices.scheme, choices.fallback
    ):
        if not fallback or scheme is Scheme.INT8_MIXED:
            yield Knobs(scheme, width, keep, sparsity, clusters, fallback)


def plain_chains(choices: Choices) -> list[Knobs]:
    """The checkpoint itself in every format: no training, so there is a result within a minute."""
    return [Knobs(scheme) for scheme in choices.scheme if scheme is not Scheme.INT8_QAT]


def used_choices(choices: Choices, candidates: Sequence[Knobs]) -> Choices:
    """The choices that occur in a candidate."""

    def used(name: str) -> tuple[Any, ...]:
        present = {getattr(knobs, name) for knobs in candidates}
        if name in UNORDERED:
            return tuple(value for value in getattr(choices, name) if value in present)
        return tuple(sorted(present))

    return Choices(**{name: used(name) for name in NAMES})


def own_chain(stages: Stages, extent: Extent) -> Knobs:
    """The chain of the recipe's own stages; where it has none, the preset's first choice."""
    student = None if stages.distill is None else stages.distill.student
    width = None if student is None else student.width
    return Knobs(
        scheme=stages.quantize.schemes[0],
        width=NEUTRAL_SHARE if fixed_student(stages) else width or extent.width[0],
        keep=extent.keep[0] if stages.channels is None else stages.channels.keep,
        sparsity=extent.sparsity[0] if stages.prune is None else stages.prune.sparsity,
        clusters=extent.clusters[0] if stages.cluster is None else stages.cluster.clusters,
    )


# -- the first trials ----------------------------------------------------------------------------


def start_list(candidates: Sequence[Knobs], own: Knobs) -> tuple[Knobs, ...]:
    """A chain that needs no training, so that there is a result at once, and the recipe's own chain.

    The corners of the space are not among them: on measured chains they were mostly over the budget, and the
    sampler did better without (`benchmarks/search.py`).
    """
    untrained = [knobs for knobs in candidates if not knobs.trained and knobs.scheme is not Scheme.INT8_QAT]
    return tuple(dict.fromkeys([*untrained[:1], nearest(candidates, own)]))


def nearest(candidates: Sequence[Knobs], wanted: Knobs) -> Knobs:
    """The valid chain that differs least from the wanted one; of equals the first."""
    return min(candidates, key=lambda knobs: _distance(knobs, wanted))


def _distance(knobs: Knobs, other: Knobs) -> tuple[float, bool]:
    steps = (
        abs(knobs.width - other.width),
        abs(knobs.keep - other.keep),
        abs(knobs.sparsity - other.sparsity),
        abs(knobs.clusters - other.clusters) / 128,
    )
    return sum(steps), knobs.scheme is not other.scheme
