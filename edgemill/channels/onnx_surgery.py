"""Taking channels out of an ONNX graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from edgemill.channels.onnx_graph import OnnxChannels
from edgemill.channels.onnx_trace import SizeFix

Mask = NDArray[np.bool_]


def remove(channels: OnnxChannels, gone: Mask) -> onnx.ModelProto:
    """The graph without some channels; every other weight is what it was.

    Args:
        channels: of the graph; its prepared graph is changed and must not be used again.
        gone: bool (all channels,), true at the atoms that go.
    """
    prepared = channels.prepared
    wanted: dict[tuple[int, int], list[tuple[int, NDArray[np.int64]]]] = {}
    for cut in channels.map.cuts:
        lost = gone[cut.atoms]
        if lost.any():
            place = (cut.layer.index, int(cut.attribute))
            wanted.setdefault(place, []).append((cut.axis, np.flatnonzero(~lost)))
    replace: dict[tuple[int, int], NDArray[Any]] = {}
    for (index, position), axes in wanted.items():
        value = prepared.value(prepared.graph.node[index].input[position])
        for axis, left in axes:
            value = np.take(value, left, axis)
        replace[index, position] = value
    for fix in channels.fixes:
        _fix(channels, fix, gone, replace)
    for (index, position), value in replace.items():
        node = prepared.graph.node[index]
        node.input[position] = prepared.add(value, f"{node.input[position]}_cut")
    prepared.forget_unused()
    return prepared.model


def _fix(channels: OnnxChannels, fix: SizeFix, gone: Mask, replace: dict[tuple[int, int], NDArray[Any]]) -> None:
    atoms = channels.map.book.atoms.find(fix.atoms)
    left = int((~gone[atoms]).sum())
    if left == len(atoms):
        return
    prepared = channels.prepared
    node = prepared.graph.node[fix.node.index]
    if fix.kind == "group":
        for item in list(node.attribute):
            if item.name == "group":
                node.attribute.remove(item)
        node.attribute.append(helper.make_attribute("group", left))
        return
    place = (fix.node.index, fix.position)
    value = np.array(replace.get(place, prepared.value(node.input[fix.position])))
    value[fix.entry] = left
    replace[place] = value
