"""Compile for OpenVINO: ONNX becomes its intermediate representation, and the answers are compared.

OpenVINO fuses and chooses kernels when it loads a model, so little is done offline. What has to be proven is
that the file answers as the ONNX model does: graphs with 16-bit activations were converted without an error
and answered at random (OpenVINO 2026.4).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

import onnxruntime
import openvino

from edgemill.artifact import size_of
from edgemill.compile import CompileSettings
from edgemill.compile.verify import INTEGER_SCHEMES, compare, numbers_of, samples
from edgemill.data.dataset import Dataset
from edgemill.errors import ToolchainError
from edgemill.recipe import Scheme
from edgemill.runtimes.onnxruntime import OnnxRuntimeModel, session_options
from edgemill.runtimes.openvino import GRAPH, RUNTIME, OpenVinoModel
from edgemill.step import InputFile, OutputFile, Outputs, StepContext

_NUMBERED = re.compile(r"\w+_\d+")
_PRODUCTS = ("Convolution", "GroupConvolution", "MatMul", "FullyConnected")


def run(settings: CompileSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Compile one ONNX model.

    Inputs:
        model: onnx, any number format.
        data: dataset; its calibration split is what the result is verified on.

    Outputs:
        model: openvino, a folder with model.xml and model.bin; weights in fp16 where that is the format.

    Facts: `op_counts`, `nodes`, `precisions` (what the products calculate in on this CPU, by number of
    layers), `float_nodes` (of an int8 model: products in floating point), `runtime_version`,
    `size_bytes`, and of the comparison with the ONNX model in onnxruntime `max_difference`,
    `mean_difference`, `agreement`, `compared`.

    Raises:
        ToolchainError: OpenVINO cannot convert or load the model, or it gives other answers.
    """
    source = inputs["model"].path
    context.report(None, f"converting for {settings.target.name}")
    folder = context.out / "model"
    try:
        model = openvino.convert_model(str(source))
        _name_the_nameless(model)
        openvino.save_model(model, str(folder / GRAPH), compress_to_fp16=settings.scheme is Scheme.FP16)
    except Exception as error:  # OpenVINO's front ends raise RuntimeError and exceptions of their own
        raise ToolchainError(
            "OpenVINO cannot convert the model.", where=str(source), got=" ".join(str(error).split())[-300:]
        ) from error
    compiled = OpenVinoModel(folder, threads=1)
    context.report(0.7, "comparing with the model it was made from")
    options = session_options(threads=1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    x = samples(Dataset(inputs["data"].path), compiled.signature)
    precisions = _precisions(compiled)
    facts = {
        "target": settings.target.name,
        "op_counts": dict(sorted(Counter(op.get_type_name() for op in model.get_ops()).items())),
        "nodes": len(model.get_ops()),
        "precisions": dict(Counter(precisions.values())),
        "float_nodes": [name for name, kind in precisions.items() if kind.startswith(("f", "bf"))]
        if settings.scheme in INTEGER_SCHEMES
        else [],
        "runtime_version": RUNTIME.version(),
        "size_bytes": size_of(folder),
    } | compare(
        OnnxRuntimeModel(source, options).predict(x), compiled.predict(x), numbers_of(settings.scheme), str(source)
    )
    return Outputs(
        files={"model": OutputFile(folder, kind="openvino", signature=compiled.signature, facts=facts)}, facts=facts
    )


def _name_the_nameless(model: openvino.Model) -> None:
    """Name what stands for nothing in the ONNX graph by its place: OpenVINO's own numbers go on from model to model,
    and the same file would be other bytes."""
    for index, op in enumerate(model.get_ordered_ops()):
        named = any(output.get_names() for output in op.outputs())
        if not named and _NUMBERED.fullmatch(op.get_friendly_name()):
            op.set_friendly_name(f"{op.get_type_name()}.{index}")


def _precisions(model: OpenVinoModel) -> dict[str, str]:
    """In which type every product is calculated, e.g. f32 or i8, from the graph that runs."""
    found = {}
    for op in model.compiled.get_runtime_model().get_ops():
        info = op.get_rt_info()
        if info["layerType"].astype(str) in _PRODUCTS:
            found[op.get_friendly_name()] = info["runtimePrecision"].astype(str)
    return found
