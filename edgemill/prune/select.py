"""Which layers are pruned, and why the others are not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgemill.recipe import PruneMethod
from edgemill.tf import keras

# Below this (stems, gates, small heads) a layer saves some hundred bytes and loses the most accuracy.
SMALLEST_KERNEL = 256
GROUP = 4
_KERNEL = {
    "Conv1D": "kernel",
    "Conv2D": "kernel",
    "Conv2DTranspose": "kernel",
    "Dense": "kernel",
    "SeparableConv1D": "pointwise_kernel",
    "SeparableConv2D": "pointwise_kernel",
}
_N_M_RANKS = (2, 4)


@dataclass(frozen=True)
class Choice:
    """Whether a layer is pruned.

    Attributes:
        name: of the layer.
        layer: the layer itself.
        kind: its class.
        weights: number of its weights.
        reason: why it is left alone; None where it is pruned.
    """

    name: str
    layer: Any
    kind: str
    weights: int
    reason: str | None

    def record(self) -> dict[str, Any]:
        """JSON value."""
        return {"layer": self.name, "kind": self.kind, "weights": self.weights, "reason": self.reason}


def leaves(model: Any) -> Iterator[Any]:
    """All layers of a model and of the models nested in it, each once, in order."""
    seen: set[int] = set()
    for layer in model.layers:
        for leaf in leaves(layer) if isinstance(layer, keras.Model) else (layer,):
            if id(leaf) not in seen:
                seen.add(id(leaf))
                yield leaf


def kernel_of(layer: Any) -> Any | None:
    """The variable of a layer that is pruned, None where the layer kind has none."""
    name = _KERNEL.get(type(layer).__name__)
    return None if name is None else getattr(layer, name)


def choose(model: Any, method: PruneMethod) -> tuple[Choice, ...]:
    """A verdict on every layer that has a weight matrix."""
    choices = []
    for layer in leaves(model):
        if any(len(weight.shape) > 1 for weight in layer.weights):
            count = sum(int(weight.shape.num_elements()) for weight in layer.trainable_weights)
            choices.append(Choice(layer.name, layer, type(layer).__name__, count, _reason(layer, method)))
    return tuple(choices)


def _reason(layer: Any, method: PruneMethod) -> str | None:
    kind = type(layer).__name__
    kernel = kernel_of(layer)
    if kind.startswith("Depthwise"):
        return "depthwise: few weights, one filter a channel"
    if kernel is None:
        return f"layers of kind {kind} are not pruned"
    size = int(kernel.shape.num_elements())
    if size < SMALLEST_KERNEL:
        return f"too small: {size} weights, fewer than {SMALLEST_KERNEL}"
    if method is PruneMethod.N_M:
        if len(kernel.shape) not in _N_M_RANKS or kind == "Conv2DTranspose":
            return f"2:4 is not defined for {kind}"
        if kernel.shape[-2] % GROUP:
            return f"2:4 needs input channels in fours, this has {kernel.shape[-2]}"
    return None
