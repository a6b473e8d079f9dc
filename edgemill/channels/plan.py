"""Which channels go: the least important for the cost they save, first."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemill.channels.cost import CostModel
from edgemill.channels.groups import ChannelMap, Group
from edgemill.channels.scores import Scores

_AHEAD = 4
"""Steps of one group that are looked at together: measured times fall in stairs, not with every step."""


@dataclass(frozen=True)
class Plan:
    """What a round removes.

    Attributes:
        gone: bool (all channels,), true at the atoms that go.
        before: cost of the layers now.
        after: cost of the layers without them.
    """

    gone: NDArray[np.bool_]
    before: float
    after: float


@dataclass(frozen=True)
class _Part:
    """A count of channels as a function of the atoms that groups have left."""

    fixed: int
    times: dict[int, int]

    def count(self, sizes: list[int]) -> int:
        return self.fixed + sum(sizes[group] * times for group, times in self.times.items())


class Costs:
    """Cost of all layers with a kernel, for any number of atoms left in the groups.

    Args:
        channels: of the model.
        model: what a layer costs.
    """

    def __init__(self, channels: ChannelMap, model: CostModel) -> None:
        self._model = model
        group_of = {int(atom): index for index, group in enumerate(channels.groups) for atom in group.atoms}
        self._uses = [
            (use.shape, use.groups, _part(use.inputs, group_of, channels), _part(use.outputs, group_of, channels))
            for use in channels.uses
        ]
        self._touched: list[list[int]] = [[] for _ in channels.groups]
        for index, (_, _, inputs, outputs) in enumerate(self._uses):
            for group in dict.fromkeys((*inputs.times, *outputs.times)):
                self._touched[group].append(index)
        self._known: dict[tuple[int, int, int], float] = {}

    def total(self, sizes: list[int]) -> float:
        """Cost of all layers.

        Args:
            sizes: atoms left, one number a group.
        """
        return sum(self._layer(index, sizes) for index in range(len(self._uses)))

    def of_group(self, group: int, sizes: list[int]) -> float:
        """Cost of the layers that a group is part of."""
        return sum(self._layer(index, sizes) for index in self._touched[group])

    def neighbours(self, group: int) -> list[int]:
        """Groups with a layer in common with this one, itself too."""
        mine = set(self._touched[group])
        return [other for other, touched in enumerate(self._touched) if other == group or mine & set(touched)]

    def _layer(self, index: int, sizes: list[int]) -> float:
        shape, groups, before, after = self._uses[index]
        inputs, outputs = before.count(sizes), after.count(sizes)
        key = (index, inputs, outputs)
        if key not in self._known:
            # Whole groups of a convolution go, so what each of its kernels sees stays.
            seen = inputs if groups == 1 else shape.inputs
            self._known[key] = self._model.layer(shape.with_channels(seen, outputs))
        return self._known[key]


def sizes_of(channels: ChannelMap) -> list[int]:
    """Atoms of every group."""
    return [len(group.atoms) for group in channels.groups]


def steps(group: Group, multiple: int) -> list[int]:
    """Numbers of atoms that a group may be brought to, its own first, descending.

    All but the first give channel counts that are multiples; the last is one multiple.
    """
    step = multiple // math.gcd(multiple, group.unit)
    size = len(group.atoms)
    return [size, *(count for count in range((size - 1) // step * step, 0, -step))]


def least_cost(channels: ChannelMap, model: CostModel, multiple: int) -> float:
    """Cost with every group at its smallest."""
    return Costs(channels, model).total([steps(group, multiple)[-1] for group in channels.groups])


def plan(channels: ChannelMap, scores: Scores, model: CostModel, target: float, multiple: int) -> Plan:
    """Choose channels until the cost is at most a target, or nothing more can go.

    Again and again the channels of one group go whose importance is the least for the cost that they save:
    the greedy rule for the knapsack problem. The last move is the one that reaches the target and loses the
    least; then groups get channels back as long as the target holds. Within a group the least important go first.

    Args:
        channels: of the model as it is.
        scores: importance of the atoms.
        model: what a layer costs.
        target: in the cost model's unit.
        multiple: channel counts are brought to multiples of this.
    """
    search = _Search(channels, scores, Costs(channels, model), multiple)
    before = search.cost
    search.go(target)
    gone = np.zeros(channels.book.atoms.count, np.bool_)
    for atoms, size in zip(search.order, search.sizes, strict=True):
        gone[atoms[: len(atoms) - size]] = True
    return Plan(gone, before, search.costs.total(search.sizes))


@dataclass(frozen=True)
class _Move:
    """A group brought to another rung of its ladder, what is lost with it and what it saves."""

    group: int
    rung: int
    lost: float
    saved: float


class _Search:
    def __init__(self, channels: ChannelMap, scores: Scores, costs: Costs, multiple: int) -> None:
        self.costs, self.sizes = costs, sizes_of(channels)
        self.order = [group.atoms[np.argsort(scores.values[group.atoms], kind="stable")] for group in channels.groups]
        self.cost = costs.total(self.sizes)
        self._scores = scores
        self._ladders = [steps(group, multiple) for group in channels.groups]
        self._rungs = [0] * len(self._ladders)

    def go(self, target: float) -> None:
        moves = {group: self._down(group, _AHEAD) for group in range(len(self.sizes))}
        while self.cost > target:
            best = min(
                (move for some in moves.values() for move in some),
                key=lambda move: (move.lost / move.saved, -move.saved, move.group),
                default=None,
            )
            if best is None:
                return
            if self.cost - best.saved <= target:
                every = (move for group in moves for move in self._down(group, len(self._ladders[group])))
                enough = [move for move in every if self.cost - move.saved <= target]
                self._do(min([best, *enough], key=lambda move: (move.lost, move.saved, move.group)))
                break
            self._do(best)
            for other in self.costs.neighbours(best.group):
                moves[other] = self._down(other, _AHEAD)
        while back := [move for group in range(len(self.sizes)) for move in self._up(group, target)]:
            self._do(min(back, key=lambda move: (move.lost, -move.saved, move.group)))

    def _do(self, move: _Move) -> None:
        self._rungs[move.group] = move.rung
        self.sizes[move.group] = self._ladders[move.group][move.rung]
        self.cost = self.costs.total(self.sizes)

    def _down(self, group: int, ahead: int) -> list[_Move]:
        """Moves of a group that save something."""
        last = min(self._rungs[group] + ahead, len(self._ladders[group]) - 1)
        moves = (self._move(group, rung) for rung in range(self._rungs[group] + 1, last + 1))
        return [move for move in moves if move.saved > 0]

    def _up(self, group: int, target: float) -> list[_Move]:
        """The move that gives a group its last channels back, if the target holds with them."""
        if self.cost > target or self._rungs[group] == 0:
            return []
        move = self._move(group, self._rungs[group] - 1)
        return [move] if self.cost - move.saved <= target else []

    def _move(self, group: int, rung: int) -> _Move:
        mine, other = self.sizes[group], self._ladders[group][rung]
        here = self.costs.of_group(group, self.sizes)
        self.sizes[group] = other
        saved = here - self.costs.of_group(group, self.sizes)
        self.sizes[group] = mine
        atoms = self.order[group]
        start, stop = sorted((len(atoms) - mine, len(atoms) - other))
        lost = self._scores.lost(atoms, start, stop)
        return _Move(group, rung, lost if other < mine else -lost, saved)


def _part(atoms: NDArray[np.int64], group_of: dict[int, int], channels: ChannelMap) -> _Part:
    counts = dict(zip(*(item.tolist() for item in np.unique(atoms, return_counts=True)), strict=True))
    times: dict[int, int] = {}
    for atom, number in counts.items():
        if atom in group_of:
            times[group_of[atom]] = number
    fixed = sum(number for atom, number in counts.items() if atom not in group_of)
    return _Part(fixed, times)
