"""Knobs: one chain of stages as a point of the search space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgemill.recipe import Scheme, Wider

NEUTRAL_SHARE = 1.0
NAMES = ("width", "keep", "sparsity", "clusters", "scheme", "fallback")
"""The knobs, in the order of the chain."""
UNORDERED = frozenset({"scheme", "fallback"})
"""Knobs whose choices have no order."""


@dataclass(frozen=True)
class Knobs:
    """How far every stage of a chain goes. A stage whose knob is at its neutral value is left out.

    Attributes:
        scheme: number format.
        width: factor on the channels of the checkpoint's graph (or of a family); 1 is no distillation.
        keep: share of the cost that channel pruning keeps; 1 is none.
        sparsity: share of zero weights; 0 is none.
        clusters: different weights of a layer; 0 is no clustering.
        fallback: wider formats for what int8 breaks, for the scheme int8_mixed only; empty: what the target has.
    """

    scheme: Scheme
    width: float = 1.0
    keep: float = 1.0
    sparsity: float = 0.0
    clusters: int = 0
    fallback: tuple[Wider, ...] = ()

    @property
    def student(self) -> tuple[float, float]:
        """What decides the architecture, and so the long training: chains with the same share it."""
        return self.width, self.keep

    @property
    def trained(self) -> bool:
        """Whether any stage before quantization is there."""
        return self.model_name != ""

    @property
    def model_name(self) -> str:
        """Short name of the chain before quantization, e.g. `w0.333-s0.5`; empty for the checkpoint itself."""
        parts = [f"{letter}{value:.3g}" for letter, value, neutral in self._training_knobs() if value != neutral]
        return "-".join(parts)

    def _training_knobs(self) -> tuple[tuple[str, float, float], ...]:
        return (
            ("w", self.width, NEUTRAL_SHARE),
            ("k", self.keep, NEUTRAL_SHARE),
            ("s", self.sparsity, 0),
            ("c", self.clusters, 0),
        )

    def record(self) -> dict[str, Any]:
        """JSON value, the inverse of `from_record`."""
        return {
            "width": self.width,
            "keep": self.keep,
            "sparsity": self.sparsity,
            "clusters": self.clusters,
            "scheme": self.scheme.value,
            "fallback": [item.value for item in self.fallback],
        }


def name_of(knobs: Knobs) -> str:
    """Short name of a chain: `w0.333-k0.5-s0.5-c16-int8_qat`; what is left out has no part."""
    formats = (knobs.scheme.value, *(item.value for item in knobs.fallback))
    return "-".join(filter(None, (knobs.model_name, *formats)))


def from_record(record: dict[str, Any]) -> Knobs:
    """Inverse of `Knobs.record`.

    Raises:
        ValueError, KeyError, TypeError: it is not the record of knobs.
    """
    return Knobs(
        scheme=Scheme(record["scheme"]),
        width=float(record["width"]),
        keep=float(record["keep"]),
        sparsity=float(record["sparsity"]),
        clusters=int(record["clusters"]),
        fallback=tuple(Wider(item) for item in record["fallback"]),
    )


def shown(name: str, value: Any) -> float | int | str:
    """Value of a knob as Optuna's tools show it."""
    if name == "fallback":
        return "+".join(item.value for item in value)
    return value.value if isinstance(value, Scheme) else value
