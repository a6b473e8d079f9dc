"""A layer of a QDQ graph: stored weights, scales and bias beside the float weights that they came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgemill.errors import InvariantError
from edgemill.quantize.onnx_graph import Editor
from edgemill.quantize.repair.linear import Floats, Linear

STORED = {TensorProto.INT8: np.dtype(np.int8), TensorProto.UINT8: np.dtype(np.uint8)}
_INT32 = 2**31 - 1


@dataclass(frozen=True)
class Grid:
    """Where the weights of a layer are stored.

    Attributes:
        stored: name of the int8 or uint8 constant.
        scale: name of its float scale, one value or one per output channel.
        lowest: smallest integer allowed, counted from the zero point.
        highest: largest one.
        zero: zero point, as integer, in a shape that broadcasts to the stored weights.
    """

    stored: str
    scale: str
    lowest: int
    highest: int
    zero: NDArray[np.int32]


@dataclass(frozen=True)
class Bias:
    """Where the bias of a layer is stored: as int32 with a scale, or (scale None) as float."""

    stored: str
    scale: str | None


class Layer:
    """A quantized layer.

    Attributes:
        name: of the layer.
        linear: its node in the quantized graph, in matrix form.
        weight: float weights that it came from, float32, in the stored shape.
        source: node of the float graph.
    """

    def __init__(
        self, editor: Editor, view: Linear, source: NodeProto, weight: Floats, grid: Grid, bias: Bias | None
    ) -> None:
        self._editor, self._grid, self._bias = editor, grid, bias
        self.name, self.linear, self.weight, self.source = view.name, view, weight, source

    @property
    def entry(self) -> str:
        """Tensor of the quantized graph that the layer reads."""
        return str(self.linear.node.input[0])

    @property
    def answer(self) -> str:
        """Tensor of the quantized graph that it makes, before it is quantized."""
        return str(self.linear.node.output[0])

    @property
    def expected(self) -> str:
        """Tensor of the float graph that corresponds to `answer`."""
        return str(self.source.output[0])

    @property
    def lowest(self) -> int:
        """Smallest integer that a weight may take, counted from the zero point."""
        return self._grid.lowest

    @property
    def highest(self) -> int:
        """Largest integer that a weight may take, counted from the zero point."""
        return self._grid.highest

    @property
    def per_channel(self) -> bool:
        """Whether each output channel has a scale of its own."""
        return self._scale().size > 1

    @property
    def integers(self) -> NDArray[np.int32]:
        """Stored weights counted from the zero point, in the stored shape."""
        stored = numpy_helper.to_array(self._editor.constants[self._grid.stored])
        shifted: NDArray[np.int32] = stored.astype(np.int32) - self._grid.zero
        return shifted

    @property
    def scales(self) -> Floats:
        """Scale of every output channel, float32 (outputs,)."""
        return np.broadcast_to(self._scale().reshape(-1), (self.linear.outputs,))

    @property
    def has_bias(self) -> bool:
        """Whether a constant is added to every output channel."""
        return self._bias is not None

    @property
    def bias(self) -> Floats:
        """What is added to every output channel, float64 (outputs,); 0 where there is nothing."""
        if self._bias is None:
            return np.zeros(self.linear.outputs)
        stored = numpy_helper.to_array(self._editor.constants[self._bias.stored]).astype(np.float64).reshape(-1)
        bias: Floats = stored if self._bias.scale is None else stored * self._bias_scale()
        return bias

    def set_integers(self, values: NDArray[np.integer]) -> None:
        """Store weights, given as `integers`.

        Raises:
            InvariantError: one is outside of `lowest`..`highest`.
        """
        if values.size and not (self.lowest <= values.min() and values.max() <= self.highest):
            raise InvariantError(
                "Integer weights leave their range.",
                where=self.name,
                expected=f"{self.lowest}..{self.highest}",
                got=f"{values.min()}..{values.max()}",
            )
        tensor = self._editor.constants[self._grid.stored]
        kind = STORED[tensor.data_type]
        stored = (values.astype(np.int32) + self._grid.zero).astype(kind)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(stored), tensor.name))

    def set_scales(self, scales: Floats) -> bool:
        """Store scales, (outputs,); where there is one for all, the first; the bias keeps its meaning.

        Returns:
            False where int32 cannot hold the bias with these scales; nothing is changed then.
        """
        old, bias = self._scale(), self.bias
        new = np.asarray(scales, np.float32).reshape(-1)[: old.size].reshape(old.shape)
        if self._bias is not None and self._bias.scale is not None:
            # The product of activation scale and weight scale.
            product = (self._bias_scale() * (new.reshape(-1) / old.reshape(-1))).astype(np.float32)
            integers = np.rint(bias / product)
            held = self._editor.constants[self._bias.scale]
            if int(np.prod(held.dims)) != product.size or not (np.abs(integers) <= _INT32).all():
                return False
            held.CopyFrom(numpy_helper.from_array(product.reshape(tuple(held.dims)), held.name))
            self._store_bias(self._bias, integers)
        tensor = self._editor.constants[self._grid.scale]
        tensor.CopyFrom(numpy_helper.from_array(new, tensor.name))
        return True

    def add_to_bias(self, values: Floats) -> None:
        """Add to the bias, (outputs,), as exactly as its int32 grid allows; a layer without one gets one.

        Raises:
            InvariantError: the operator takes no bias.
        """
        if self._bias is None:
            self._bias = self._new_bias()
        bias = self._bias
        if bias.scale is None:
            tensor = self._editor.constants[bias.stored]
            value = numpy_helper.to_array(tensor)
            summed = (value.astype(np.float64) + values.reshape(value.shape)).astype(value.dtype)
            tensor.CopyFrom(numpy_helper.from_array(summed, tensor.name))
            return
        integers = np.rint((self.bias + values) / self._bias_scale())
        self._store_bias(bias, np.clip(integers, -_INT32, _INT32))

    def takes_bias(self) -> bool:
        """Whether `add_to_bias` can work."""
        return self.has_bias or self.linear.node.op_type != "MatMul"

    def _scale(self) -> Floats:
        scale: Floats = numpy_helper.to_array(self._editor.constants[self._grid.scale])
        return scale

    def _bias_scale(self) -> Floats:
        if self._bias is None or self._bias.scale is None:
            raise InvariantError("A bias without a scale was asked for its scale.", where=self.name)
        held = numpy_helper.to_array(self._editor.constants[self._bias.scale])
        scale: Floats = held.astype(np.float64).reshape(-1)
        return scale

    def _store_bias(self, bias: Bias, integers: Floats) -> None:
        tensor = self._editor.constants[bias.stored]
        stored = integers.astype(np.int32).reshape(tuple(tensor.dims))
        tensor.CopyFrom(numpy_helper.from_array(stored, tensor.name))

    def _new_bias(self) -> Bias:
        node = self.linear.node
        if not self.takes_bias():
            raise InvariantError("The operator takes no bias.", where=self.name, got=node.op_type)
        entry = self._editor.producer(self.entry)
        activation = None if entry is None else self._editor.value(entry.input[1])
        count = self.linear.outputs
        while len(node.input) < 3:
            node.input.append("")
        if entry is None or entry.op_type != "DequantizeLinear" or activation is None:
            node.input[2] = stored = self._editor.constant(np.zeros(count, np.float32), f"{self.name}_bias")
            return Bias(stored, None)
        scale = (activation.reshape(-1) * self._scale().reshape(-1)).astype(np.float32)
        scale = scale if self.per_channel else scale.reshape(())
        stored = self._editor.constant(np.zeros(count, np.int32), f"{self.name}_bias_quantized")
        scale_name = self._editor.constant(scale, f"{self.name}_bias_quantized_scale")
        zero = self._editor.constant(np.zeros(scale.shape, np.int32), f"{self.name}_bias_quantized_zero_point")
        node.input[2] = real = self._editor.name(f"{self.name}_bias")
        made = helper.make_node(
            "DequantizeLinear", [stored, scale_name, zero], [real], name=f"{real}/DequantizeLinear", axis=0
        )
        self._editor.insert(node, made)
        return Bias(stored, scale_name)
