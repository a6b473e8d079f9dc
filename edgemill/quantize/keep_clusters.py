"""Keep the shared weights of a clustered model through quantization-aware training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgemill.cluster.codebook import Shared, recognise, to_rows
from edgemill.cluster.projection import MOVING, Place, Projection
from edgemill.cluster.select import PRUNED
from edgemill.errors import InvariantError
from edgemill.prune.select import SMALLEST_KERNEL
from edgemill.quantize.placement import QatModel


class SharedLevels:
    """Levels of the layers that came with shared weights.

    Early in the training a weight may change to a nearer level, but the zeros of a pruned layer stay.

    Args:
        qat: the model under quantization, before training.
        updates: of the training.

    Attributes:
        layers: number of different values by layer, only of clustered layers.
    """

    def __init__(self, qat: QatModel, updates: int) -> None:
        places = []
        self.layers: dict[str, int] = {}
        for wrapper in qat.wrappers:
            for weight, quantizer, _ in wrapper._weight_vars:
                rows = to_rows(weight.numpy(), quantizer.axes)
                shared = recognise(rows) if rows.size >= SMALLEST_KERNEL else None
                if shared is not None:
                    zeros = shared.index == 0
                    fixed = zeros & (zeros.mean() > PRUNED)
                    places.append(Place(wrapper.name, wrapper, weight, quantizer.axes, shared, fixed))
                    self.layers[wrapper.name] = _count(shared)
        self._projection = Projection(places, int(updates * MOVING)) if places else None

    @property
    def after_step(self) -> Callable[[], None] | None:
        """What the training loop calls after every update, None if nothing is clustered."""
        return None if self._projection is None else self._projection.after_step

    def check(self) -> None:
        """Check that every layer still has no more different values than it came with.

        Raises:
            InvariantError: it has more.
        """
        for place in () if self._projection is None else self._projection.places:
            now = recognise(to_rows(place.kernel.numpy(), place.axes))
            if now is None or _count(now) > self.layers[place.name]:
                raise InvariantError(
                    "Quantization-aware training undid clustering.",
                    where=place.name,
                    expected=f"at most {self.layers[place.name]} different weights",
                    got="weights off the levels" if now is None else _count(now),
                )


def after_step(*hooks: Callable[[], None] | None) -> Callable[[], None] | None:
    """One hook for the training loop that calls those that there are, in turn."""
    present = [hook for hook in hooks if hook is not None]

    def call() -> None:
        for hook in present:
            hook()

    return call if present else None


def _count(shared: Shared) -> int:
    steps: Any = shared.steps
    return len(np.unique(steps))
