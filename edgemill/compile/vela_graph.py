"""The operators of a TFLite file, read with Vela's own schema."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ethosu.vela.tflite.BuiltinOperator import BuiltinOperator
from ethosu.vela.tflite.Model import Model
from ethosu.vela.tflite.TensorType import TensorType

from edgemill.artifact import Signature, TensorSpec
from edgemill.errors import ToolchainError

COMMAND_STREAM = "ethos-u"
"""Name of the custom operator that holds what runs on the NPU."""

_OPERATORS: dict[int, str] = {code: name for name, code in vars(BuiltinOperator).items() if not name.startswith("_")}
_TYPES: dict[int, str] = {code: name.lower() for name, code in vars(TensorType).items() if not name.startswith("_")}


@dataclass(frozen=True)
class Graph:
    """The first subgraph of a file.

    Attributes:
        operators: names in order, e.g. CONV_2D; a custom operator by its own name.
        signature: its inputs and outputs.
    """

    operators: tuple[str, ...]
    signature: Signature

    @property
    def left_to_cpu(self) -> tuple[str, ...]:
        """Operators that are no command stream."""
        return tuple(name for name in self.operators if name != COMMAND_STREAM)


def read_graph(path: Path) -> Graph:
    """Read a TFLite file.

    Raises:
        ToolchainError: it cannot be read.
    """
    try:
        model = Model.GetRootAs(path.read_bytes(), 0)
        graph = model.Subgraphs(0)
        return Graph(
            operators=tuple(
                _name(model.OperatorCodes(graph.Operators(index).OpcodeIndex()))
                for index in range(graph.OperatorsLength())
            ),
            signature=Signature(
                inputs=tuple(_spec(graph.Tensors(graph.Inputs(i))) for i in range(graph.InputsLength())),
                outputs=tuple(_spec(graph.Tensors(graph.Outputs(i))) for i in range(graph.OutputsLength())),
            ),
        )
    except (OSError, struct.error, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        raise ToolchainError(
            "This is no TFLite file.", where=str(path), got=f"{type(error).__name__}: {error}"[:300]
        ) from error


def _name(code: Any) -> str:
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    if number == BuiltinOperator.CUSTOM:
        custom: bytes = code.CustomCode() or b"CUSTOM"
        return custom.decode(errors="replace")
    return _OPERATORS.get(number, f"operator {number}")


def _spec(tensor: Any) -> TensorSpec:
    quantization = tensor.Quantization()
    quantized = quantization is not None and quantization.ScaleLength() == 1
    signed = tensor.ShapeSignatureLength() > 0
    sizes = [tensor.ShapeSignature(i) for i in range(tensor.ShapeSignatureLength())] if signed else []
    sizes = sizes or [tensor.Shape(i) for i in range(tensor.ShapeLength())]
    return TensorSpec(
        name=(tensor.Name() or b"").decode(errors="replace"),
        dtype=_TYPES[tensor.Type()],
        shape=tuple(int(size) if size >= 0 else None for size in sizes),
        scale=float(quantization.Scale(0)) if quantized else None,
        zero_point=int(quantization.ZeroPoint(0)) if quantized else None,
    )
