"""The channels of a model that can be removed, in groups of equals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgemill.channels.atoms import Indices
from edgemill.channels.book import Book, Cut, Role, Use


@dataclass(frozen=True)
class Group:
    """Atoms that lie along the same axes of the same weights.

    Attributes:
        name: of the first of these layers by name; with a number where it has several groups.
        layers: all layers that write them, sorted.
        readers: layers that read them, sorted.
        atoms: what can be removed, one by one; ascending.
        unit: channels of the first writing layer that one atom stands for.
        reason: why they are left whole; None where they can be removed.
    """

    name: str
    layers: tuple[str, ...]
    readers: tuple[str, ...]
    atoms: Indices
    unit: int
    reason: str | None

    @property
    def channels(self) -> int:
        """Channels of the first writing layer."""
        return len(self.atoms) * self.unit


@dataclass(frozen=True)
class ChannelMap:
    """All channels of a model.

    Attributes:
        book: what following them has found.
        cuts: axes of weights, their channels given as atoms.
        uses: calls of layers with a kernel, their channels given as atoms.
        groups: that can be removed.
        whole: that cannot.
    """

    book: Book
    cuts: tuple[Cut, ...]
    uses: tuple[Use, ...]
    groups: tuple[Group, ...]
    whole: tuple[Group, ...]

    def sum_by_atom(self, values: Iterable[tuple[Cut, Any]]) -> Any:
        """Add up one number per index of each cut, float64 (all channels,), at the atoms' numbers."""
        total = np.zeros(self.book.atoms.count)
        for cut, numbers in values:
            np.add.at(total, cut.atoms, np.asarray(numbers, np.float64))
        return total


def find_groups(book: Book) -> ChannelMap:
    """Sort the channels that were followed into groups."""
    find = book.atoms.find
    cuts = tuple(Cut(cut.layer, cut.attribute, cut.axis, cut.role, find(cut.atoms)) for cut in book.cuts)
    uses = tuple(Use(use.layer, use.shape, find(use.inputs), find(use.outputs), use.groups) for use in book.uses)
    seen: dict[int, list[tuple[int, int]]] = {}
    for index, cut in enumerate(cuts):
        for atom, times in zip(*np.unique(cut.atoms, return_counts=True), strict=True):
            seen.setdefault(int(atom), []).append((index, int(times)))
    members: dict[tuple[Any, ...], list[int]] = {}
    for atom in sorted(seen):
        members.setdefault((tuple(seen[atom]), book.atoms.reason(atom)), []).append(atom)
    found = [_group(cuts, places, atoms, reason) for (places, reason), atoms in members.items()]
    named = _named([item for item in found if item is not None])
    return ChannelMap(
        book,
        cuts,
        uses,
        tuple(group for group in named if group.reason is None),
        tuple(group for group in named if group.reason is not None),
    )


def _group(
    cuts: tuple[Cut, ...], places: tuple[tuple[int, int], ...], atoms: list[int], reason: str | None
) -> tuple[Group, int] | None:
    """A group named after one of its layers, and its place in that layer; None for the model's input."""
    writers = sorted(
        ((cuts[index], times) for index, times in places if cuts[index].role is Role.WRITES),
        key=lambda item: str(item[0].layer.name),
    )
    if not writers:
        return None
    first, unit = writers[0]
    group = Group(
        first.layer.name,
        _names(cut for cut, _ in writers),
        _names(cuts[index] for index, _ in places if cuts[index].role is Role.READS),
        np.array(atoms, np.int64),
        unit,
        reason,
    )
    return group, int(np.flatnonzero(first.atoms == atoms[0])[0])


def _named(found: list[tuple[Group, int]]) -> list[Group]:
    """Groups in graph order, with numbers where a layer has several.

    Names do not depend on the order in which Keras walks the graph, which changes when it is built again.
    """
    taken: set[str] = set()
    named = []
    for group, _ in sorted(found, key=lambda item: (item[0].name, item[1])):
        named.append(replace(group, name=_unused(group.name, taken)))
    return sorted(named, key=lambda group: int(group.atoms[0]))


def _names(cuts: Iterable[Cut]) -> tuple[str, ...]:
    return tuple(sorted({str(cut.layer.name) for cut in cuts}))


def _unused(name: str, taken: set[str]) -> str:
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name} ({number})"
    taken.add(candidate)
    return candidate
