"""What a repair did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgemill.recipe import Repair


@dataclass(frozen=True)
class Report:
    """What a repair did to a graph.

    Attributes:
        repair: which one.
        layers: numbers for every layer (or pair or group of layers) that was changed, by name.
        left: why a layer was left as it was, by name.
        facts: numbers for the whole graph.
    """

    repair: Repair
    layers: Mapping[str, Mapping[str, float | int]] = field(default_factory=dict)
    left: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether the graph is another one now."""
        return bool(self.layers)

    def record(self) -> dict[str, Any]:
        """JSON value."""
        return {
            "repair": str(self.repair),
            "changed": len(self.layers),
            "layers": {name: dict(numbers) for name, numbers in self.layers.items()},
            "left": dict(self.left),
            **self.facts,
        }
