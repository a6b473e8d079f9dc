"""What one layer costs, as a function of its channel counts.

Pruning asks the same question thousands of times: what would this layer cost with fewer channels?
A cost model answers it from the layer's geometry alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

Kind = Literal["conv", "depthwise", "dense"]
Padding = Literal["same", "valid"]


@dataclass(frozen=True)
class LayerShape:
    """One layer with a kernel, with its current channel counts.

    A 1-D convolution is a convolution with height 1.

    Attributes:
        kind: `conv`, `depthwise` (one kernel per input channel, times `outputs / inputs`) or `dense`.
        inputs: input channels (features of a dense layer).
        outputs: output channels (units of a dense layer).
        kernel: rows and columns of the kernel; (1, 1) for a dense layer.
        strides: rows and columns between two outputs.
        padding: `same`, or `valid` for none.
        height: rows of the input map; 1 for a dense layer (or how often it is applied).
        width: columns of the input map; 1 for a dense layer.
        dilation: rows and columns between two taps of the kernel.
    """

    kind: Kind
    inputs: int
    outputs: int
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    padding: Padding = "same"
    height: int = 1
    width: int = 1
    dilation: tuple[int, int] = (1, 1)

    @property
    def output_height(self) -> int:
        """Rows of the output map."""
        return _steps(self.height, self.kernel[0], self.strides[0], self.dilation[0], self.padding)

    @property
    def output_width(self) -> int:
        """Columns of the output map."""
        return _steps(self.width, self.kernel[1], self.strides[1], self.dilation[1], self.padding)

    @property
    def weights(self) -> int:
        """Numbers in the kernel, without bias."""
        per_input = self.kernel[0] * self.kernel[1] * self.outputs
        return per_input if self.kind == "depthwise" else per_input * self.inputs

    def with_channels(self, inputs: int, outputs: int) -> LayerShape:
        """The same geometry with other channel counts."""
        return replace(self, inputs=inputs, outputs=outputs)

    def geometry(self) -> LayerShape:
        """The shape without channel counts (both 0): what a latency table is kept for."""
        return self.with_channels(0, 0)


def _steps(size: int, kernel: int, stride: int, dilation: int, padding: Padding) -> int:
    if padding == "same":
        return -(-size // stride)
    return max(0, (size - (kernel - 1) * dilation - 1) // stride + 1)


class CostModel(Protocol):
    """Answers what a layer costs."""

    @property
    def unit(self) -> str:
        """Unit of the cost, for reports."""
        ...

    def layer(self, shape: LayerShape) -> float:
        """Cost of one layer; 0 for a layer without channels."""
        ...


@dataclass(frozen=True)
class MacsCost:
    """Multiply-accumulates of one forward pass of one sample."""

    unit: str = "MACs"

    def layer(self, shape: LayerShape) -> float:
        """MACs of the layer: weights times positions of the output map."""
        return float(shape.weights * shape.output_height * shape.output_width)


@dataclass(frozen=True)
class BytesCost:
    """Bytes of the weights in int8 with an int32 bias per output channel."""

    unit: str = "bytes"

    def layer(self, shape: LayerShape) -> float:
        """Bytes of the layer's kernel and bias."""
        return float(shape.weights + 4 * shape.outputs)


class Latencies(Protocol):
    """Measured times of layers, see `edgemill.channels.latency_table`."""

    def microseconds(self, shape: LayerShape) -> float:
        """Time of one layer.

        Raises:
            InvariantError: the table holds no layer of this geometry.
        """
        ...


@dataclass(frozen=True)
class LatencyCost:
    """Time of the layer in int8 in the target's runtime, from a table of measurements."""

    table: Latencies
    unit: str = "us"

    def layer(self, shape: LayerShape) -> float:
        """Microseconds of the layer, 0 without channels."""
        if shape.inputs <= 0 or shape.outputs <= 0:
            return 0.0
        return self.table.microseconds(shape)
