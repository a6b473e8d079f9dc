"""Which layers are clustered, and why the others are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgemill.prune.select import SMALLEST_KERNEL, kernel_of, leaves

PRUNED = 0.3
"""Share of zeros from which a layer counts as pruned; trained weights have next to none."""


@dataclass(frozen=True)
class Choice:
    """Whether a layer is clustered.

    Attributes:
        layer: the Keras layer.
        weights: number of weights of its kernel.
        reason: why it is left alone; None where it is clustered.
    """

    layer: Any
    weights: int
    reason: str | None

    @property
    def kernel(self) -> Any:
        """The variable whose values are shared."""
        return kernel_of(self.layer)

    @property
    def axes(self) -> tuple[int, ...]:
        """Axes of the kernel that count output channels."""
        rank = len(self.kernel.shape)
        return (rank - 2,) if type(self.layer).__name__ == "Conv2DTranspose" else (rank - 1,)

    @property
    def pruned(self) -> bool:
        """Whether the kernel came with many zeros."""
        return bool((self.kernel.numpy() == 0).mean() > PRUNED)

    def record(self) -> dict[str, Any]:
        """JSON value."""
        kind = type(self.layer).__name__
        return {"layer": self.layer.name, "kind": kind, "weights": self.weights, "reason": self.reason}


def choose(model: Any) -> tuple[Choice, ...]:
    """A verdict on every layer that has a weight matrix."""
    choices = []
    for layer in leaves(model):
        matrices = [weight for weight in layer.trainable_weights if len(weight.shape) > 1]
        if matrices:
            kernel = kernel_of(layer)
            counted = matrices if kernel is None else [kernel]
            count = sum(int(weight.shape.num_elements()) for weight in counted)
            choices.append(Choice(layer, count, _reason(layer, kernel, count)))
    return tuple(choices)


def _reason(layer: Any, kernel: Any | None, count: int) -> str | None:
    kind = type(layer).__name__
    if kind.startswith("Depthwise"):
        return "depthwise: few weights, one filter a channel"
    if kernel is None:
        return f"layers of kind {kind} are not clustered"
    if count < SMALLEST_KERNEL:
        return f"too small: {count} weights, fewer than {SMALLEST_KERNEL}"
    if not kernel.numpy().any():
        return "all its weights are 0"
    return None
