"""How channels pass ONNX operators with weights. One function a kind: `rule(trace, node, ref)`."""

from __future__ import annotations

from math import prod

import numpy as np
from onnx import NodeProto

from edgemill.channels.atoms import Indices
from edgemill.channels.book import CannotFollowError, Role
from edgemill.channels.cost import Kind, LayerShape, Padding
from edgemill.channels.onnx_prepare import Shape
from edgemill.channels.onnx_trace import NodeRef, Trace, attribute, title

_CHANNELS = 1


def convolution(trace: Trace, node: NodeProto, ref: NodeRef) -> None:
    """Conv: new channels come out, or, depthwise, each passes through its own kernel."""
    kernel = _kernel(trace, node)
    atoms = trace.on_axis(node.input[0], _CHANNELS, node)
    groups = int(attribute(node, "group", 1))
    outputs = kernel.shape[0]
    before, after = trace.shape(node.input[0]), trace.shape(node.output[0])
    if groups > 1 and groups == len(atoms) and kernel.shape[1] == 1:
        made = np.repeat(atoms, outputs // groups)
        trace.cut(ref, 1, 0, Role.FILTERS, made)
        trace.cut_bias(node, ref, 2, made)
        trace.fix(ref, "group", 0, 0, atoms)
        trace.use(ref, _shape(node, "depthwise", len(atoms), kernel.shape, before, after), atoms, made)
    elif groups > 1:
        reason = f"{title(node)} is a convolution in {groups} groups"
        trace.atoms.freeze(atoms, reason)
        made = trace.atoms.new(outputs, reason)
        trace.cut(ref, 1, 0, Role.WRITES, made)
        trace.use(ref, _shape(node, "conv", kernel.shape[1], kernel.shape, before, after), atoms, made, groups)
    else:
        made = trace.atoms.new(outputs)
        trace.cut(ref, 1, 1, Role.READS, atoms)
        trace.cut(ref, 1, 0, Role.WRITES, made)
        trace.cut_bias(node, ref, 2, made)
        trace.use(ref, _shape(node, "conv", len(atoms), kernel.shape, before, after), atoms, made)
    trace.goes_on(node.output[0], _CHANNELS, made)


def transposed(trace: Trace, node: NodeProto, ref: NodeRef) -> None:
    """ConvTranspose: as Conv, with the kernel's inputs first."""
    kernel = _kernel(trace, node)
    atoms = trace.on_axis(node.input[0], _CHANNELS, node)
    if int(attribute(node, "group", 1)) != 1:
        raise CannotFollowError(f"{title(node)} is a transposed convolution in groups")
    made = trace.atoms.new(kernel.shape[1])
    trace.cut(ref, 1, 0, Role.READS, atoms)
    trace.cut(ref, 1, 1, Role.WRITES, made)
    trace.cut_bias(node, ref, 2, made)
    size = trace.shape(node.input[0])[2:]
    # Every input position meets the whole kernel once, as in a convolution with stride 1 over the input.
    shape = LayerShape("conv", len(atoms), len(made), _plane(kernel.shape[2:]), (1, 1), "same", *_plane(size))
    trace.use(ref, shape, atoms, made)
    trace.goes_on(node.output[0], _CHANNELS, made)


def dense(trace: Trace, node: NodeProto, ref: NodeRef) -> None:
    """Gemm with a constant matrix."""
    matrix = _kernel(trace, node)
    if int(attribute(node, "transA", 0)):
        raise CannotFollowError(f"{title(node)} transposes its input")
    reads, writes = (1, 0) if int(attribute(node, "transB", 0)) else (0, 1)
    bias = trace.constant(node, 2)
    if bias is not None and bias.ndim > 1 and prod(bias.shape[:-1]) != 1:
        raise CannotFollowError(f"{title(node)} has a bias for every sample")
    atoms = trace.on_axis(node.input[0], 1, node)
    made = trace.atoms.new(matrix.shape[writes])
    trace.cut(ref, 1, reads, Role.READS, atoms)
    trace.cut(ref, 1, writes, Role.WRITES, made)
    if bias is not None and bias.ndim and bias.shape[-1] == len(made):
        trace.cut(ref, 2, bias.ndim - 1, Role.FOLLOWS, made)
    trace.use(ref, LayerShape("dense", len(atoms), len(made)), atoms, made)
    trace.goes_on(node.output[0], 1, made)


def product(trace: Trace, node: NodeProto, ref: NodeRef) -> None:
    """MatMul with a constant matrix behind the input."""
    if trace.activations(node) != [0]:
        raise CannotFollowError(f"{title(node)} multiplies tensors that are computed at run time")
    matrix = _kernel(trace, node)
    if matrix.ndim != 2:
        raise CannotFollowError(f"{title(node)} multiplies with more than one matrix")
    shape = trace.shape(node.input[0])
    last = len(shape) - 1
    flow = trace.flow(node.input[0])
    positions = prod(shape[1:-1])
    if flow.axis != last and len(shape) > 2 and not _is_whole(trace, flow.atoms):
        # It mixes positions, not channels: these go on where they are, and its own columns stay.
        fixed = trace.atoms.new(matrix.shape[1], f"{title(node)} works along another axis than the channels")
        inputs = trace.atoms.new(matrix.shape[0], "they are positions")
        trace.use(ref, LayerShape("dense", len(inputs), len(fixed), height=positions), inputs, fixed)
        trace.goes_on(node.output[0], flow.axis, flow.atoms)
        return
    atoms = trace.on_axis(node.input[0], last, node)
    made = trace.atoms.new(matrix.shape[1])
    trace.cut(ref, 1, 0, Role.READS, atoms)
    trace.cut(ref, 1, 1, Role.WRITES, made)
    trace.use(ref, LayerShape("dense", len(atoms), len(made), height=positions), atoms, made)
    trace.goes_on(node.output[0], last, made)


def normalization(trace: Trace, node: NodeProto, ref: NodeRef) -> None:
    """BatchNormalization and InstanceNormalization: numbers for each channel."""
    atoms = trace.on_axis(node.input[0], _CHANNELS, node)
    for position in range(1, len(node.input)):
        trace.constant(node, position)
        role = Role.NORMALIZES if position == 1 else Role.FOLLOWS
        trace.cut(ref, position, 0, role, atoms)
    trace.goes_on(node.output[0], _CHANNELS, atoms)


def _kernel(trace: Trace, node: NodeProto) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    kernel = trace.constant(node, 1)
    if kernel is None or not trace.activations(node):
        raise CannotFollowError(f"{title(node)} has no stored weights")
    if trace.prepared.readers[node.input[1]] > 1:
        raise CannotFollowError(f"the weights of {title(node)} serve several places")
    return kernel


def _is_whole(trace: Trace, atoms: Indices) -> bool:
    return all(trace.atoms.reason(int(root)) is not None for root in np.unique(trace.atoms.find(atoms)))


def _shape(node: NodeProto, kind: Kind, inputs: int, kernel: Shape, before: Shape, after: Shape) -> LayerShape:
    sizes, made = before[2:], after[2:]
    strides = tuple(attribute(node, "strides", [1] * len(sizes)))
    dilations = tuple(attribute(node, "dilations", [1] * len(sizes)))
    if len(sizes) > 2:
        # Counted over its output positions, which gives its exact multiplications.
        return LayerShape(kind, inputs, kernel[0], _plane(kernel[2:]), (1, 1), "same", *_plane(made))
    reached = tuple(-(-size // stride) for size, stride in zip(sizes, strides, strict=True))
    padding: Padding = "same" if made == reached else "valid"
    shape = LayerShape(
        kind,
        inputs,
        kernel[0],
        _plane(kernel[2:]),
        _plane(strides),
        padding,
        *_plane(sizes),
        _plane(dilations),
    )
    if (shape.output_height, shape.output_width) == _plane(made):
        return shape
    # Other paddings: again over the output positions.
    return LayerShape(kind, inputs, kernel[0], _plane(kernel[2:]), (1, 1), "same", *_plane(made))


def _plane(sizes: Shape) -> tuple[int, int]:
    """Two dimensions of any number: one is a single row, of three the first two are counted together."""
    if len(sizes) == 1:
        return (1, sizes[0])
    return (prod(sizes[:-1]), sizes[-1])
