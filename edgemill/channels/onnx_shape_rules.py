"""How channels pass ONNX operators without weights. One function a kind: `rule(trace, node, ref)`."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import NodeProto

from edgemill.channels.book import CannotFollowError, Flow, Role
from edgemill.channels.onnx_prepare import Shape
from edgemill.channels.onnx_trace import NodeRef, Trace, attribute, moved, title

_CHANNELS = 1
_LARGEST_MOVED = 1 << 26


def same(trace: Trace, node: NodeProto, ref: NodeRef) -> None:
    """Operators that treat every number alone; further inputs are single numbers."""
    for position in trace.activations(node)[1:]:
        trace.atoms.freeze(trace.flow(node.input[position]).atoms, f"{title(node)} takes a limit from them")
    for position in range(1, len(node.input)):
        if trace.prepared.is_constant(node.input[position]) and trace.prepared.value(node.input[position]).size > 1:
            raise CannotFollowError(f"{title(node)} has more than one number as its setting")
    flow = trace.flow(node.input[0])
    for name in node.output[1:]:
        trace.atoms.freeze(flow.atoms, f"{title(node)} gives a second output {name}")
    trace.goes_on(node.output[0], flow.axis, flow.atoms)


def merge(trace: Trace, node: NodeProto, ref: NodeRef) -> None:
    """Elementwise with broadcasting: channels that meet go together, stored numbers are cut with them."""
    out = trace.shape(node.output[0])
    rank = len(out)
    flows: list[tuple[int, Flow, Shape]] = []
    for position in trace.activations(node):
        shape, flow = trace.shape(node.input[position]), trace.flow(node.input[position])
        shape = (1,) * (rank - len(shape)) + shape
        flows.append((position, Flow(flow.axis + rank - len(trace.shape(node.input[position])), flow.atoms), shape))
    full = [flow for _, flow, shape in flows if out[flow.axis] == shape[flow.axis] and out[flow.axis] > 1]
    open_ = [flow for flow in full if not _is_whole(trace, flow)]
    main = (open_ or full or [flows[0][1]])[0]
    atoms = main.atoms if len(main.atoms) == out[main.axis] else trace.atoms.new(out[main.axis], _spread(node))
    for _, flow, shape in flows:
        if flow.axis == main.axis and len(flow.atoms) == len(atoms):
            trace.atoms.join(atoms, flow.atoms)
            continue
        trace.atoms.freeze(flow.atoms, _spread(node))
        if shape[main.axis] > 1:
            trace.atoms.freeze(atoms, f"{title(node)} joins them with another axis")
    for position, name in enumerate(node.input):
        if name and trace.prepared.is_constant(name):
            sizes = trace.prepared.value(name).shape
            axis = main.axis - (rank - len(sizes))
            if axis >= 0 and sizes[axis] > 1:
                trace.cut(ref, position, axis, Role.FOLLOWS, atoms)
    trace.goes_on(node.output[0], main.axis, atoms)


def pool(trace: Trace, node: NodeProto, ref: NodeRef) -> None:
    """Pooling: each channel alone."""
    if len([name for name in node.output if name]) > 1:
        raise CannotFollowError(f"{title(node)} gives a second output")
    trace.goes_on(node.output[0], _CHANNELS, trace.on_axis(node.input[0], _CHANNELS, node))


def reduce(trace: Trace, node: NodeProto, ref: NodeRef) -> None:
    """ReduceMean and the like over other axes."""
    flow, rank = trace.flow(node.input[0]), len(trace.shape(node.input[0]))
    stored = trace.constant(node, 1)
    listed = stored.tolist() if stored is not None else attribute(node, "axes", None)
    if listed is None or len(listed) == 0:
        raise CannotFollowError(f"{title(node)} sums over all axes")
    axes = {int(axis) % rank for axis in listed}
    _apart(trace, node, flow, axes)
    lost = 0 if int(attribute(node, "keepdims", 1)) else sum(axis < flow.axis for axis in axes)
    trace.goes_on(node.output[0], flow.axis - lost, flow.atoms)


def along(trace: Trace, node: NodeProto, ref: NodeRef) -> None:
    """Softmax and the like: over one other axis."""
    flow, rank = trace.flow(node.input[0]), len(trace.shape(node.input[0]))
    _apart(trace, node, flow, {int(attribute(node, "axis", -1)) % rank})
    trace.goes_on(node.output[0], flow.axis, flow.atoms)


def layer_norm(trace: Trace, node: NodeProto, ref: NodeRef) -> None:
    """LayerNormalization over other axes."""
    flow, rank = trace.flow(node.input[0]), len(trace.shape(node.input[0]))
    first = int(attribute(node, "axis", -1)) % rank
    _apart(trace, node, flow, set(range(first, rank)))
    trace.goes_on(node.output[0], flow.axis, flow.atoms)


def rearrange(trace: Trace, node: NodeProto, ref: NodeRef) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze, Transpose: values only move."""
    name = node.input[0]
    before, after, flow = trace.shape(name), trace.shape(node.output[0]), trace.flow(name)
    if len(flow.atoms) < 2 or _is_whole(trace, flow):
        raise CannotFollowError("they are not made by a layer with weights")
    if np.prod(before) > _LARGEST_MOVED:
        raise CannotFollowError(f"{title(node)} moves too many numbers to follow them")

    def change(places: Any) -> Any:
        if node.op_type != "Transpose":
            return places.reshape(after)
        order = list(attribute(node, "perm", range(places.ndim)[::-1]))
        return np.transpose(places, order)

    if node.op_type == "Reshape":
        trace.constant(node, 1)
    found = moved(flow, before, change)
    if found is None:
        raise CannotFollowError(f"{title(node)} spreads them over several axes")
    if node.op_type == "Reshape":
        _fix_reshape(trace, node, ref, flow, found)
    trace.goes_on(node.output[0], found.axis, found.atoms)


def _fix_reshape(trace: Trace, node: NodeProto, ref: NodeRef, before: Flow, after: Flow) -> None:
    wanted = trace.constant(node, 1)
    assert wanted is not None
    if before.axis != after.axis and before.axis < len(wanted) and wanted[before.axis] == 0:
        raise CannotFollowError(f"{title(node)} copies a size that changes")
    if wanted[after.axis] != -1:
        trace.fix(ref, "constant", 1, after.axis, after.atoms)


def concatenate(trace: Trace, node: NodeProto, ref: NodeRef) -> None:
    """Concat: along the channels one after the other, along another axis those that meet go together."""
    out = trace.shape(node.output[0])
    axis = int(attribute(node, "axis", 0)) % len(out)
    computed = trace.activations(node)
    open_ = [i for i in computed if not _is_whole(trace, trace.flow(node.input[i]))]
    main = trace.flow(node.input[(open_ or computed)[0]]).axis
    parts = []
    for position, name in enumerate(node.input):
        if position in computed:
            parts.append(trace.on_axis(name, main, node))
        elif axis == main:
            parts.append(trace.atoms.new(trace.shape(name)[main], f"{title(node)} has them stored"))
        else:
            trace.cut(ref, position, main, Role.FOLLOWS, trace.on_axis(node.input[computed[0]], main, node))
    if axis != main:
        for other in parts[1:]:
            trace.atoms.join(parts[0], other)
    trace.goes_on(node.output[0], main, np.concatenate(parts) if axis == main else parts[0])


def pad(trace: Trace, node: NodeProto, ref: NodeRef) -> None:
    """Pad around other axes."""
    flow, rank = trace.flow(node.input[0]), len(trace.shape(node.input[0]))
    widths = trace.constant(node, 1)
    listed = trace.constant(node, 3)
    if widths is None:
        raise CannotFollowError(f"{title(node)} has no sizes")
    axes = [int(axis) % rank for axis in (range(rank) if listed is None else listed.tolist())]
    padded = {axis for index, axis in enumerate(axes) if widths[index] or widths[index + len(axes)]}
    _apart(trace, node, flow, padded)
    trace.goes_on(node.output[0], flow.axis, flow.atoms)


def resize(trace: Trace, node: NodeProto, ref: NodeRef) -> None:
    """Resize over other axes."""
    flow = trace.flow(node.input[0])
    before, after = trace.shape(node.input[0]), trace.shape(node.output[0])
    if before[flow.axis] != after[flow.axis] or attribute(node, "axes", None) is not None:
        raise CannotFollowError(f"{title(node)} interpolates between them")
    sizes = trace.constant(node, 3)
    if sizes is not None and sizes.size:
        trace.fix(ref, "constant", 3, flow.axis, flow.atoms)
    trace.goes_on(node.output[0], flow.axis, flow.atoms)


def slice_(trace: Trace, node: NodeProto, ref: NodeRef) -> None:
    """Slice of other axes."""
    flow, rank = trace.flow(node.input[0]), len(trace.shape(node.input[0]))
    starts, axes = trace.constant(node, 1), trace.constant(node, 3)
    trace.constant(node, 2)
    trace.constant(node, 4)
    if starts is None:
        raise CannotFollowError(f"{title(node)} has no sizes")
    _apart(trace, node, flow, {int(axis) % rank for axis in (range(len(starts)) if axes is None else axes.tolist())})
    trace.goes_on(node.output[0], flow.axis, flow.atoms)


def split(trace: Trace, node: NodeProto, ref: NodeRef) -> None:
    """Split of another axis: the parts have the same channels."""
    flow, rank = trace.flow(node.input[0]), len(trace.shape(node.input[0]))
    _apart(trace, node, flow, {int(attribute(node, "axis", 0)) % rank})
    for name in node.output:
        if name:
            trace.goes_on(name, flow.axis, flow.atoms)


def sizes(trace: Trace, node: NodeProto, ref: NodeRef) -> None:
    """Shape, where only other sizes than the channels are taken out of it."""
    flow = trace.flow(node.input[0])
    rank = len(trace.shape(node.input[0]))
    for reader in trace.prepared.graph.node:
        if node.output[0] in reader.input and not _takes_others(trace, reader, flow.axis, rank):
            raise CannotFollowError(f"{title(node)} hands on how many there are")
    if node.output[0] in {item.name for item in trace.prepared.graph.output}:
        raise CannotFollowError(f"{title(node)} hands on how many there are")


def _takes_others(trace: Trace, reader: NodeProto, axis: int, rank: int) -> bool:
    """Whether a node takes fixed entries out of a shape, and not that of the channels."""
    if not all(trace.prepared.is_constant(name) for name in reader.input[1:] if name):
        return False
    stored = [trace.prepared.value(name) for name in reader.input[1:] if name]
    entries = np.arange(rank)
    if reader.op_type == "Gather":
        taken = entries[stored[0]]
    elif reader.op_type == "Slice" and len(stored) >= 2 and all(value.size == 1 for value in stored):
        step = int(stored[3].item()) if len(stored) > 3 else 1
        taken = entries[int(stored[0].item()) : int(stored[1].item()) : step]
    else:
        return False
    return axis not in np.atleast_1d(taken).tolist()


def _apart(trace: Trace, node: NodeProto, flow: Flow, axes: set[int]) -> None:
    if flow.axis in axes:
        raise CannotFollowError(f"{title(node)} works across them")


def _spread(node: NodeProto) -> str:
    return f"{title(node)} spreads it over all channels"


def _is_whole(trace: Trace, flow: Flow) -> bool:
    return all(trace.atoms.reason(int(root)) is not None for root in np.unique(trace.atoms.find(flow.atoms)))
