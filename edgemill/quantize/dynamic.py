"""Step `quantize.dynamic`: int8 weights, activations quantized at run time, with onnxruntime."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from edgemill.errors import RecipeError, ToolchainError
from edgemill.quantize import DynamicSettings
from edgemill.quantize.kernels import optimized_kernels
from edgemill.quantize.static import prepare
from edgemill.recipe import Granularity
from edgemill.runtimes.onnxruntime import RUNTIME as ONNXRUNTIME
from edgemill.step import InputFile, OutputFile, Outputs, StepContext

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_HELPED = ("Attention", "EmbedLayerNormalization", "Gemm", "LSTM", "MatMul")
_SHOWN = 10


def run(settings: DynamicSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Quantize the weights of an ONNX graph.

    Args:
        settings: the target's weight range, granularity.
        inputs: `onnx` (fp32).
        context: folders.

    Returns:
        file `onnx`; facts `quantized_nodes` (by operator), `kernels` of the optimized graph.

    Raises:
        RecipeError: the graph has convolutions (onnxruntime's ConvInteger was measured 6.3 times
            slower than fp32), or nothing that the scheme could help.
        ToolchainError: onnxruntime fails.
    """
    source = inputs["onnx"]
    before = onnx.load(str(source.path))
    refuse(before)
    target = context.out / "model.onnx"
    with tempfile.TemporaryDirectory(dir=context.out) as folder:
        prepared = Path(folder) / "prepared.onnx"
        prepare(source.path, prepared)
        context.report(0.3, "quantizing weights")
        try:
            quantize_dynamic(
                str(prepared),
                str(target),
                op_types_to_quantize=list(_HELPED),
                per_channel=settings.granularity is Granularity.PER_CHANNEL and settings.int8.per_channel,
                reduce_range=settings.int8.reduce_range,
                weight_type=QuantType.QInt8,
            )
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise ToolchainError(
                "onnxruntime cannot quantize the model.", where=source.path.name, got=str(error)[:2000]
            ) from error
    after = Counter(node.op_type for node in onnx.load(str(target)).graph.node)
    integer = {
        kind: count for kind, count in sorted(after.items()) if "Integer" in kind or kind.startswith("DynamicQuantize")
    }
    facts: dict[str, Any] = {"quantized_nodes": integer, "kernels": optimized_kernels(target).record()}
    return Outputs({"onnx": OutputFile(target, "onnx", ONNXRUNTIME.load(target).signature)}, facts)


def refuse(model: onnx.ModelProto) -> None:
    """Refuse graphs that dynamic quantization makes slower or leaves as they are.

    Raises:
        RecipeError: naming the convolutions, or saying that there is nothing to quantize.
    """
    convolutions = [node.name or node.output[0] for node in model.graph.node if node.op_type in _CONVOLUTIONS]
    if convolutions:
        more = f" and {len(convolutions) - _SHOWN} more" if len(convolutions) > _SHOWN else ""
        raise RecipeError(
            "int8_dynamic makes convolutions slower on onnxruntime: ConvInteger took 6.3 times as long as fp32.",
            where="stages.quantize.schemes",
            expected="a model of MatMul, Gemm or LSTM nodes for this scheme",
            got=f"{len(convolutions)} convolutions: {', '.join(convolutions[:_SHOWN])}{more}",
            remedy="use int8_static or int8_qat for this model",
        )
    if not any(node.op_type in _HELPED for node in model.graph.node):
        raise RecipeError(
            "int8_dynamic finds nothing to quantize.",
            where="stages.quantize.schemes",
            expected=f"at least one of {', '.join(_HELPED)}",
            got=", ".join(sorted({node.op_type for node in model.graph.node})),
            remedy="use fp16 for this model",
        )
