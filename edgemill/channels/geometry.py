"""Shapes of the layers of a Keras model that have a kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgemill.channels.cost import LayerShape, Padding
from edgemill.tf import keras


@dataclass(frozen=True)
class NamedShape:
    """A layer's shape and the name of the layer in its model."""

    name: str
    shape: LayerShape


def layer_shapes(model: Any) -> list[NamedShape]:
    """Shape of every convolution and dense layer, once per place where it is called, in the order of the graph.

    A separable convolution gives two shapes. A convolution in groups counts as one with the inputs of one group,
    a transposed one as an ordinary one over the input map; their MACs are exact. Dimensions that the model leaves
    open count as 1. Layers inside nested models are named `outer/inner`.

    Args:
        model: functional or sequential tf_keras model.
    """
    return list(_shapes(model, ""))


def _shapes(model: Any, prefix: str) -> Iterator[NamedShape]:
    for layer in model.layers:
        name = prefix + layer.name
        if isinstance(layer, keras.Model):
            yield from _shapes(layer, f"{name}/")
            continue
        inner = layer
        while isinstance(inner, keras.layers.Wrapper) and not isinstance(inner, keras.layers.Bidirectional):
            inner = inner.layer
        for size in _input_sizes(layer, model):
            for shape in shapes_of(inner, size):
                yield NamedShape(name, shape)


def _input_sizes(layer: Any, model: Any) -> list[tuple[int, ...]]:
    """Shape of the input of each call of a layer inside this model, without the batch."""
    nodes = (
        {id(node) for group in model._nodes_by_depth.values() for node in group} if model._is_graph_network else None
    )
    sizes = []
    for node in layer.inbound_nodes:
        if nodes is not None and id(node) not in nodes:
            continue
        shape = node.input_shapes
        if isinstance(shape, (list, dict)):
            continue
        sizes.append(tuple(extent or 1 for extent in shape[1:]))
    return sizes


def shapes_of(layer: Any, size: tuple[int, ...]) -> list[LayerShape]:
    """Shapes of what one layer computes with kernels; empty for a layer without.

    Args:
        layer: tf_keras layer.
        size: its input without the batch, e.g. (height, width, channels).
    """
    kind = type(layer).__name__
    if kind == "Dense":
        positions = 1
        for extent in size[:-1]:
            positions *= extent
        return [LayerShape("dense", size[-1], layer.units, height=positions)]
    if kind not in _SPATIAL or (layer.data_format or "channels_last") != "channels_last":
        return []
    height, width = _pair((*size[:-1],))
    kernel, dilation = _pair(layer.kernel_size), _pair(layer.dilation_rate)
    if kind.endswith("Transpose"):
        return [LayerShape("conv", size[-1], layer.filters, kernel, (1, 1), "same", height, width)]
    strides = _pair(layer.strides)
    padding: Padding = "valid" if layer.padding == "valid" else "same"
    if kind.startswith(("Depthwise", "Separable")):
        depth = LayerShape(
            "depthwise",
            size[-1],
            size[-1] * layer.depth_multiplier,
            kernel,
            strides,
            padding,
            height,
            width,
            dilation,
        )
        if kind.startswith("Depthwise"):
            return [depth]
        point = LayerShape("conv", depth.outputs, layer.filters, height=depth.output_height, width=depth.output_width)
        return [depth, point]
    inputs = size[-1] // layer.groups
    return [LayerShape("conv", inputs, layer.filters, kernel, strides, padding, height, width, dilation)]


_SPATIAL = {
    "Conv1D",
    "Conv1DTranspose",
    "Conv2D",
    "Conv2DTranspose",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "SeparableConv1D",
    "SeparableConv2D",
}


def _pair(values: Any) -> tuple[int, int]:
    """Rows and columns; one dimension is a single row."""
    numbers = tuple(int(value) for value in (values if isinstance(values, (tuple, list)) else (values,)))
    return (1, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])
