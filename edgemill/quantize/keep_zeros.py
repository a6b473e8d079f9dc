"""Keep the zeros of a pruned model through quantization-aware training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgemill.cluster.select import PRUNED
from edgemill.errors import InvariantError
from edgemill.quantize.placement import QatModel
from edgemill.tf import tf


class ZeroMasks:
    """Masks of the layers that came with many zeros.

    Attributes:
        layers: share of zeros by layer, only of pruned layers.
    """

    def __init__(self, qat: QatModel) -> None:
        self._masked: list[tuple[str, Any, Any]] = []
        self.layers: dict[str, float] = {}
        for wrapper in qat.wrappers:
            for weight, *_ in wrapper._weight_vars:
                kept = weight.numpy() != 0
                if 1 - kept.mean() > PRUNED:
                    self._masked.append((wrapper.name, weight, tf.constant(kept.astype(np.float32))))
                    self.layers[wrapper.name] = float(1 - kept.mean())

    @property
    def after_step(self) -> Callable[[], None] | None:
        """What the training loop calls after every update, None if nothing is pruned."""
        return self._apply if self._masked else None

    def _apply(self) -> None:
        for _, weight, mask in self._masked:
            weight.assign(weight * mask)

    def check(self) -> None:
        """Check that every zero is still one.

        Raises:
            InvariantError: a pruned weight came back.
        """
        for name, weight, mask in self._masked:
            back = int(np.count_nonzero(weight.numpy()[mask.numpy() == 0]))
            if back:
                raise InvariantError("Quantization-aware training undid pruning.", where=name, expected="0", got=back)
