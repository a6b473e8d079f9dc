"""ONNX operators that slide over or cut the spatial axes, without weights, in Keras 2 layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto

from edgemill.ingest.bridge_layers import CannotBridgeError
from edgemill.ingest.onnx_bridge_graph import BATCH_SIZE, Graph, attribute
from edgemill.ingest.onnx_bridge_layout import Value, channels_first, inverse

Pads = list[tuple[int, int]]
_LARGEST = 2
_ENDLESS = 1 << 31


def windows_of(node: NodeProto, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Strides and dilations of a convolution or pooling over `count` axes."""
    return tuple(attribute(node, "strides", [1] * count)), tuple(attribute(node, "dilations", [1] * count))


def padding_of(
    node: NodeProto,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    sizes: Sequence[int | None],
) -> tuple[str, Pads]:
    """Keras' `padding` ("same" or "valid") of a convolution or pooling, and zeros to be put before it."""
    count = len(kernel)
    pads = attribute(node, "pads", [0] * (2 * count))
    auto = attribute(node, "auto_pad", "NOTSET")
    ceil = attribute(node, "ceil_mode", 0)
    if auto == "SAME_UPPER":
        return "same", []
    explicit, same = [], []
    for axis, (k, s, d, size) in enumerate(zip(kernel, strides, dilations, sizes, strict=True)):
        reach = (k - 1) * d + 1
        total = reach - 1 if s == 1 else None if size is None else max((-(-size // s) - 1) * s + reach - size, 0)
        pair = (0, 0) if auto == "VALID" else (pads[axis], pads[axis + count])
        if auto == "SAME_LOWER":
            if total is None:
                raise CannotBridgeError("pads a free size")
            pair = (total - total // 2, total // 2)
        if ceil and auto in ("NOTSET", "VALID"):
            pair = (pair[0], pair[1] + _ceiled(size, pair, reach, s))
        explicit.append(pair)
        same.append(total is not None and pair == (total // 2, total - total // 2))
    if any(value < 0 for pair in explicit for value in pair):
        raise CannotBridgeError("negative padding")
    if not any(sum(pair) for pair in explicit):
        return "valid", []
    return ("same", []) if all(same) else ("valid", explicit)


def _ceiled(size: int | None, pair: tuple[int, int], reach: int, stride: int) -> int:
    """Places that a last, incomplete window needs more (ceil_mode)."""
    if size is None:
        raise CannotBridgeError("rounds a free size up")
    rest = (size + sum(pair) - reach) % stride
    starts_inside = size + pair[0] > -(-(size + sum(pair) - reach) // stride) * stride
    return stride - rest if rest and starts_inside else 0


def pad(graph: Graph, x: Any, pads: Pads, name: str) -> Any:
    """Zeros around the spatial axes of a channels-last tensor."""
    if not any(sum(pair) for pair in pads):
        return x
    return graph.layer(f"ZeroPadding{len(pads)}D", f"{name}_pad", pads[0] if len(pads) == 1 else tuple(pads))(x)


def _pool(graph: Graph, node: NodeProto) -> Value:
    kind = node.op_type.removesuffix("Pool")
    value, name, kernel = graph.value(node), graph.label(node), attribute(node, "kernel_shape", [])
    count = len(kernel)
    strides, dilations = windows_of(node, count)
    if count not in (1, _LARGEST) or set(dilations) != {1} or len([o for o in node.output if o]) > 1:
        raise CannotBridgeError(f"pools {count} axes, with dilations {dilations} and {len(node.output)} outputs")
    x = graph.channels_last(value, name)
    padding, zeros = padding_of(node, kernel, strides, dilations, x.shape[1:-1])
    if kind == "Average" and padding == "same" and attribute(node, "count_include_pad", 0):
        raise CannotBridgeError("counts automatic padding")
    if zeros and (kind == "Average" or node.input[0] not in graph.nonnegative):
        raise CannotBridgeError("pads with something else than zeros")
    layer = graph.layer(f"{kind}Pooling{count}D", name, kernel, strides=strides, padding=padding)
    return channels_first(layer(pad(graph, x, zeros, name)))


def _average_pool(graph: Graph, node: NodeProto) -> Value:
    """Zeros that are counted are put there by a layer, zeros that are not are Keras' own."""
    if not attribute(node, "count_include_pad", 0) or not any(attribute(node, "pads", [0])):
        return _pool(graph, node)
    if attribute(node, "ceil_mode", 0):
        raise CannotBridgeError("counts padding, and rounds up")
    value, name, kernel = graph.value(node), graph.label(node), attribute(node, "kernel_shape", [])
    pads, count = attribute(node, "pads", []), len(kernel)
    if count not in (1, _LARGEST):
        raise CannotBridgeError(f"pools {count} axes")
    x = pad(graph, graph.channels_last(value, name), list(zip(pads[:count], pads[count:], strict=True)), name)
    strides, _ = windows_of(node, count)
    return channels_first(graph.layer(f"AveragePooling{count}D", name, kernel, strides=strides)(x))


def _global_pool(graph: Graph, node: NodeProto) -> Value:
    kind = "Average" if "Average" in node.op_type else "Max"
    value = graph.value(node)
    return _reduced(graph, node, value, tuple(range(2, value.rank)), True, kind)


def _reduce(graph: Graph, node: NodeProto) -> Value:
    value = graph.value(node)
    axes = graph.sizes(node, 1) or attribute(node, "axes", []) or list(range(value.rank))
    keep = bool(attribute(node, "keepdims", 1))
    kind = "Average" if node.op_type == "ReduceMean" else "Max"
    return _reduced(graph, node, value, tuple(axis % value.rank for axis in axes), keep, kind)


def _reduced(graph: Graph, node: NodeProto, value: Value, axes: tuple[int, ...], keep: bool, kind: str) -> Value:
    """Mean or maximum over all axes but the batch and one other, in whatever order they lie."""
    name = graph.label(node)
    value = graph.resolved(value, name)
    rest = [axis for axis in range(1, value.rank) if axis not in axes]
    real = [axis for axis in axes if value.shape[axis] != 1]
    if 0 in axes or len(rest) != 1 or len(real) > _LARGEST:
        raise CannotBridgeError(f"reduces the axes {list(axes)} of {value.rank}")
    left = [0, *real, *rest]
    part = Value(value.tensor, tuple(value.axes[axis] for axis in left))
    order = sorted(range(1, len(left) - 1), key=lambda i: part.axes[i] or 0)
    x = graph.arranged(part, [0, *order, len(left) - 1], name)
    if real:
        x = graph.layer(f"Global{kind}Pooling{len(real)}D", name)(x)
    if keep:
        return Value(x, tuple({0: 0, rest[0]: 1}.get(axis) for axis in range(value.rank)))
    return Value(x, (0, 1))


def _pad(graph: Graph, node: NodeProto) -> Value:
    pads = graph.sizes(node, 1)
    if attribute(node, "mode", "constant") != "constant" or pads is None:
        raise CannotBridgeError(f"pads by {attribute(node, 'mode', 'constant')}")
    filling = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if filling is not None and filling.any():
        raise CannotBridgeError("pads with something else than zeros")
    value = graph.value(node)
    axes = graph.sizes(node, 3) or list(range(value.rank))
    wanted = {a % value.rank: (pads[i], pads[i + len(axes)]) for i, a in enumerate(axes)}
    return _spatial(graph, node, value, "ZeroPadding", wanted)


def _slice(graph: Graph, node: NodeProto) -> Value:
    value = graph.value(node)
    starts, ends, axes, steps = (graph.sizes(node, index) for index in range(1, 5))
    if starts is None or ends is None or set(steps or [1]) != {1}:
        raise CannotBridgeError("takes every second value or so")
    wanted = {}
    for axis, start, end in zip(axes or range(len(starts)), starts, ends, strict=True):
        place = axis % value.rank
        size = BATCH_SIZE if place == 0 else value.shape[place]
        if size is None:
            if start < 0 or (end > 0 and end < _ENDLESS - 1):
                raise CannotBridgeError("cuts a free size")
            wanted[place] = (start, 0 if end > 0 else -end)
            continue
        begin, stop = (int(np.clip(v + size if v < 0 else v, 0, size)) for v in (start, end))
        wanted[place] = (begin, size - stop)
        if stop <= begin:
            raise CannotBridgeError("leaves nothing")
    return _spatial(graph, node, value, "Cropping", wanted)


def _spatial(graph: Graph, node: NodeProto, value: Value, kind: str, wanted: dict[int, tuple[int, int]]) -> Value:
    """Keras' padding or cropping layer, for which the axes in question must lie between batch and last."""
    wanted = {axis: pair for axis, pair in wanted.items() if pair != (0, 0)}
    if not wanted:
        return value
    if any(size < 0 for pair in wanted.values() for size in pair):
        raise CannotBridgeError("negative sizes")
    count = value.rank - 2
    if 0 in wanted or count not in (1, _LARGEST) or len(wanted) > count:
        raise CannotBridgeError(f"changes the axes {sorted(wanted)} of {value.rank}")
    name = graph.label(node)
    places = [value.position(axis) for axis in wanted]
    inner = range(1, value.rank - 1)
    if value.flat or None in value.axes or len(value.tensor.shape) != value.rank or not set(places) <= set(inner):
        rest = [axis for axis in range(1, value.rank) if axis not in wanted]
        order = [0, *sorted([*wanted, *rest[1:]]), rest[0]] if len(wanted) < count else [0, *sorted(wanted), *rest]
        value = Value(graph.arranged(value, order, name), inverse(order))
    pairs = [next((p for a, p in wanted.items() if value.axes[a] == axis), (0, 0)) for axis in inner]
    layer = graph.layer(f"{kind}{count}D", name, pairs[0] if count == 1 else tuple(pairs))
    return value.of(layer(value.tensor))


_EXACT = {
    "nearest": {
        ("asymmetric", "floor"), ("tf_half_pixel_for_nn", "floor"), ("half_pixel", "round_prefer_floor"),
        ("half_pixel", "round_prefer_ceil"), ("pytorch_half_pixel", "round_prefer_floor"),
    },
    "linear": {("half_pixel", ""), ("pytorch_half_pixel", "")},
}  # fmt: skip


def _resize(graph: Graph, node: NodeProto) -> Value:
    mode = attribute(node, "mode", "nearest")
    rule = (
        attribute(node, "coordinate_transformation_mode", "half_pixel"),
        attribute(node, "nearest_mode", "round_prefer_floor") if mode == "nearest" else "",
    )
    if rule not in _EXACT.get(mode, set()):
        raise CannotBridgeError(f"resizes by {mode}, {', '.join(filter(None, rule))}")
    value, name = graph.value(node), graph.label(node)
    factors = _factors(graph, node, value)
    if len(factors) not in (1, _LARGEST) or (len(factors) == 1 and mode != "nearest"):
        raise CannotBridgeError(f"resizes {len(factors)} axes by {mode}")
    last = factors and [a for a in range(1, value.rank) if a not in factors]
    if len(last) != 1 or value.flat:
        raise CannotBridgeError(f"resizes the axes {sorted(factors)} of {value.rank}")
    order = [0, *sorted(factors), *last]
    x = graph.arranged(value, order, name)
    if len(factors) == 1:
        return Value(graph.layer("UpSampling1D", name, *factors.values())(x), inverse(order))
    size = tuple(factors[axis] for axis in sorted(factors))
    way = "nearest" if mode == "nearest" else "bilinear"
    return Value(graph.layer("UpSampling2D", name, size, interpolation=way)(x), inverse(order))


def _factors(graph: Graph, node: NodeProto, value: Value) -> dict[int, int]:
    """By what whole number which ONNX axis grows. Of a tensor of rank 4, both spatial axes are named."""
    sizes = graph.sizes(node, 3)
    shape = [BATCH_SIZE, *value.shape[1:]]
    if sizes:
        if None in shape:
            raise CannotBridgeError("resizes a free size")
        scales = [size / (have or 1) for size, have in zip(sizes, shape, strict=True)]
    else:
        given = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if given is None or given.size != value.rank:
            raise CannotBridgeError("its scales are computed from the input")
        scales = [float(item) for item in given]
    if any(scale != int(scale) or scale < 1 for scale in scales) or scales[0] != 1:
        raise CannotBridgeError(f"resizes by {scales}")
    found = {axis: int(scale) for axis, scale in enumerate(scales) if scale != 1}
    if value.rank == 4 and len(found) < _LARGEST:
        # channels are axis 1 unless that one grows
        spare = next(axis for axis in (2, 3) if axis not in found)
        found |= {spare: 1} | ({5 - spare: 1} if not found else {})
    return found


WINDOWS: dict[str, Callable[[Graph, NodeProto], Value]] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "MaxPool": _pool,
    "Pad": _pad,
    "ReduceMax": _reduce,
    "ReduceMean": _reduce,
    "Resize": _resize,
    "Slice": _slice,
}
