"""What can be removed: sets of channels that only go together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class Atoms:
    """Disjoint sets of channels (union-find).

    Every channel of every tensor has a number. Channels of which one cannot be removed without the
    others are joined and are one atom from then on, named by the lowest of their numbers.
    """

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._reasons: dict[int, str] = {}

    def new(self, count: int, reason: str | None = None) -> Indices:
        """Numbers of `count` new channels; with a reason they are never removed."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        if reason is not None:
            self._reasons.update(dict.fromkeys(range(start, start + count), reason))
        return np.arange(start, start + count, dtype=np.int64)

    def find(self, channels: Indices) -> Indices:
        """The atom of every channel, same shape."""
        numbers, inverse = np.unique(channels, return_inverse=True)
        roots = np.array([self._root(int(number)) for number in numbers], np.int64)
        return roots[inverse].reshape(channels.shape)

    def join(self, a: Indices, b: Indices) -> None:
        """Join channels pair by pair; both of shape (n,)."""
        for one, other in np.unique(np.stack([a, b], axis=1), axis=0):
            self._join(int(one), int(other))

    def join_all(self, channels: Indices) -> None:
        """Make one atom of all these channels."""
        if channels.size:
            self.join(channels.ravel()[:-1], channels.ravel()[1:])

    def freeze(self, channels: Indices, reason: str, *, instead: bool = False) -> None:
        """Never remove these channels.

        Args:
            reason: ends the sentence "its channels are left whole because".
            instead: of a reason that they have already.
        """
        for root in np.unique(self.find(channels)):
            if instead or int(root) not in self._reasons:
                self._reasons[int(root)] = reason

    def reason(self, root: int) -> str | None:
        """Why an atom is never removed; None where it may be."""
        return self._reasons.get(root)

    @property
    def count(self) -> int:
        """Channels so far."""
        return len(self._parent)

    def _root(self, number: int) -> int:
        root = number
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[number] != root:
            self._parent[number], number = root, self._parent[number]
        return root

    def _join(self, one: int, other: int) -> None:
        low, high = sorted((self._root(one), self._root(other)))
        if low == high:
            return
        self._parent[high] = low
        reason = self._reasons.pop(high, None)
        if reason is not None:
            self._reasons.setdefault(low, reason)
