"""Which kernels onnxruntime really runs: read from its optimized graph, never from the file given to it."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from edgemill.errors import ToolchainError
from edgemill.quantize.onnx_graph import MOVES

_INTEGER = {
    "ConvInteger",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "QAttention",
    "QEmbedLayerNormalization",
    "QGemm",
}
_BORDER = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
_NO_INT8_KERNEL = {"ConvTranspose"}
_SHOULD_BE_INTEGER = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "Add"}


@dataclass(frozen=True)
class Kernels:
    """Operators of an optimized graph.

    Attributes:
        counts: number of nodes by operator type.
        integer: nodes that compute on integers.
        float_compute: names of the nodes that compute on floats, by operator type.
        unfused: of these, the ones for which onnxruntime has an 8-bit kernel.
    """

    counts: dict[str, int]
    integer: int
    float_compute: dict[str, tuple[str, ...]]
    unfused: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """JSON value."""
        return {
            "operators": dict(sorted(self.counts.items())),
            "integer_nodes": self.integer,
            "float_nodes": {key: list(value) for key, value in sorted(self.float_compute.items())},
            "unfused": list(self.unfused),
        }


def optimized_kernels(path: Path) -> Kernels:
    """Operators that onnxruntime runs for a model, optimized at level EXTENDED.

    uint8 activations: as on x86; int8 activations: as on ARM, whatever this machine is.

    Raises:
        ToolchainError: onnxruntime does not load the model.
    """
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(optimized)
        options.log_severity_level = 3
        # Without it onnxruntime on x86 rewrites int8 activations to uint8 where it can and gives up where
        # it cannot; with it the graph is the one an ARM machine gets. uint8 graphs are not affected.
        options.add_session_config_entry("session.qdqisint8allowed", "1")
        try:
            ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise ToolchainError(
                "onnxruntime does not load the model.", where=path.name, got=str(error)[:2000]
            ) from error
        graph = onnx.load(str(optimized)).graph
    return _sort_out(graph)


def _sort_out(graph: onnx.GraphProto) -> Kernels:
    counts = Counter(node.op_type for node in graph.node)
    integers: set[str] = {tensor.name for tensor in graph.initializer if tensor.data_type != onnx.TensorProto.FLOAT}
    compute: dict[str, list[str]] = {}
    unfused: list[str] = []
    integer = 0
    for node in graph.node:
        kind = node.op_type
        if kind in _INTEGER or kind.startswith("QLinear"):
            integer += 1
            integers.update(node.output if _answers_integer(node) else ())
        elif kind == "QuantizeLinear" or (kind in MOVES and node.input[0] in integers):
            integers.update(node.output)
        elif kind not in _BORDER and kind not in MOVES and kind not in {"Shape", "Gather", "Concat", "Cast"}:
            compute.setdefault(kind, []).append(node.name)
            if kind in _SHOULD_BE_INTEGER:
                unfused.append(f"{kind} {node.name}")
    return Kernels(dict(counts), integer, {key: tuple(value) for key, value in compute.items()}, tuple(unfused))


def _answers_integer(node: onnx.NodeProto) -> bool:
    if node.op_type == "QGemm":
        return len(node.input) > 7 and bool(node.input[7])
    kind: str = node.op_type
    return kind.startswith("QLinear")
