"""What a layer's kernel sees at some positions of its input, and what the layer answers there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from edgemill.quantize.onnx_graph import attribute
from edgemill.quantize.repair.linear import Linear


def windows(layer: Linear, x: NDArray[Any]) -> NDArray[Any]:
    """Every position's view of an input, without copying.

    Args:
        layer: the operator.
        x: Conv: (N, C, *space); others: (*positions, inputs).

    Returns:
        Conv: (N, *positions, C, *kernel); others: x.
    """
    if not layer.convolution:
        return x
    kernel = layer.shape[2:]
    rank = len(kernel)
    strides = attribute(layer.node, "strides", [1] * rank)
    dilations = attribute(layer.node, "dilations", [1] * rank)
    spans = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    x = np.pad(x, [(0, 0), (0, 0), *_pads(layer, x.shape[2:], spans, strides)])
    view: NDArray[Any] = sliding_window_view(x, spans, axis=tuple(range(2, 2 + rank)))
    view = view[(slice(None), slice(None), *(slice(None, None, step) for step in (*strides, *dilations)))]
    return np.moveaxis(view, 1, 1 + rank)


def answers(layer: Linear, y: NDArray[Any]) -> NDArray[Any]:
    """A layer's output as (N, *positions, outputs)."""
    return np.moveaxis(y, 1, -1) if layer.convolution else y


def rows(layer: Linear, seen: NDArray[Any]) -> NDArray[Any]:
    """What the kernel sees, as the factor of `Linear.matrix`.

    Args:
        layer: the operator.
        seen: positions of `windows`, (R, C, *kernel) or (R, inputs).

    Returns:
        (groups, R, inputs of a group times kernel).
    """
    return np.ascontiguousarray(seen.reshape(len(seen), layer.groups, -1).transpose(1, 0, 2))


def positions(shape: tuple[int, ...], count: int, draw: np.random.Generator) -> tuple[NDArray[np.intp], ...]:
    """Indices of `count` different positions (all, if there are not more) of a grid, each drawn with equal chance."""
    total = int(np.prod(shape))
    chosen = np.arange(total) if count >= total else np.sort(draw.choice(total, count, replace=False))
    return tuple(np.unravel_index(chosen, shape))


def _pads(layer: Linear, space: tuple[int, ...], spans: list[int], strides: list[int]) -> list[tuple[int, int]]:
    mode = attribute(layer.node, "auto_pad", b"NOTSET")
    rank = len(space)
    if mode in (b"SAME_UPPER", b"SAME_LOWER"):
        made = []
        for size, span, stride in zip(space, spans, strides, strict=True):
            total = max((-(-size // stride) - 1) * stride + span - size, 0)
            less, more = total // 2, total - total // 2
            made.append((less, more) if mode == b"SAME_UPPER" else (more, less))
        return made
    given = [0] * (2 * rank) if mode == b"VALID" else attribute(layer.node, "pads", [0] * (2 * rank))
    return list(zip(given[:rank], given[rank:], strict=True))
