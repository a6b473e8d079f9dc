"""What the ranking knows of each channel's importance, however it was found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemill.channels.atoms import Indices
from edgemill.recipe import Importance

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Importance of atoms.

    Attributes:
        values: float64 (all channels,), at the atoms' numbers; 0 or more.
        relative: whether they mean something within a group only.
        measured: of every group, by its name, which importance it was.
    """

    values: Numbers
    relative: bool
    measured: dict[str, Importance]

    def lost(self, atoms: Indices, start: int, stop: int) -> float:
        """What removing atoms[start:stop] loses, where atoms[:start] are gone already."""
        if not self.relative:
            return float(self.values[atoms[start:stop]].sum())
        squares = self.values[atoms[start:]] ** 2
        whole = float(squares.sum())
        return float(squares[: stop - start].sum()) / whole if whole > 0 else 0.0
