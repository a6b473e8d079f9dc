"""Compile for TensorRT: an ONNX model by NVIDIA's rules, and beside it how the engine is built on the device.

TensorRT itself builds an engine on the GPU that will run it, which is not here. So what can be proven is that
the graph keeps the documented rules and answers as the model it was made from; nothing more is claimed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import onnx

from edgemill.artifact import Signature, size_of
from edgemill.compile import CompileSettings
from edgemill.compile.foreign import plain_answers
from edgemill.compile.onnx_graph import op_counts, opset_of, read_onnx
from edgemill.compile.tensorrt_graph import adapt
from edgemill.compile.tensorrt_rules import violations
from edgemill.compile.verify import compare, numbers_of, samples
from edgemill.data.dataset import Dataset
from edgemill.errors import ToolchainError
from edgemill.runtimes.onnxruntime import RUNTIME
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.targets.spec import Target

MODEL, BUILD, ENGINE = "model.onnx", "build.json", "model.plan"
"""Names in the folder that ships, and of the engine that the device makes of it."""


def run(settings: CompileSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Adapt one ONNX model, check it against the rules, and write the build command.

    Inputs:
        model: onnx; float, or with QDQ pairs.
        data: dataset; its calibration split is what the result is compared on.

    Outputs:
        model: tensorrt, a folder with model.onnx and build.json.

    Facts: `op_counts`, `opset`, `rules` (what was checked against), `command`, `size_bytes`, and of the
    comparison with the source in onnxruntime `max_difference`, `mean_difference`, `agreement`, `compared`.

    Raises:
        ToolchainError: the graph cannot be adapted, breaks a rule, or answers otherwise.
    """
    source, target = inputs["model"].path, settings.target
    context.report(None, f"adapting for {target.name}")
    model = adapt(read_onnx(source), str(source))
    if broken := violations(model, target):
        raise ToolchainError(
            "The model does not keep the rules of TensorRT.",
            where=str(source),
            got="; ".join(broken[:10]),
            remedy="choose another number format, or export the model without these operators",
        )
    folder = context.out / "model"
    folder.mkdir()
    onnx.save(model, str(folder / MODEL))
    signature = RUNTIME.load(folder / MODEL).signature
    build = build_config(target, signature)
    (folder / BUILD).write_text(json.dumps(build, indent=1) + "\n", encoding="utf-8")
    context.report(0.7, "comparing with the model it was made from")
    x = samples(Dataset(inputs["data"].path), signature)
    facts = {
        "target": target.name,
        "op_counts": op_counts(model),
        "opset": opset_of(model),
        "rules": "TensorRT explicit quantization; onnx-tensorrt operators",
        "command": build["command"],
        "size_bytes": size_of(folder),
    } | compare(plain_answers(source, x), plain_answers(folder / MODEL, x), numbers_of(settings.scheme), str(source))
    return Outputs({"model": OutputFile(folder, "tensorrt", signature, facts)}, facts)


def build_config(target: Target, signature: Signature) -> dict[str, Any]:
    """How the engine is built on the device: the command line, and what it takes and gives.

    The network is strongly typed: every tensor has the type that the ONNX model gives it, so there are no flags
    of precision, and TensorRT chooses no other (NVIDIA, "Explicit Quantization": "Use explicit quantization with
    Strong Typing. Precision-control build flags are not required and should not be specified").
    """

    def described(specs: tuple[Any, ...]) -> list[dict[str, Any]]:
        return [{"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)} for spec in specs]

    return {
        "runtime": target.runtime.model_dump(mode="json"),
        "command": ["trtexec", f"--onnx={MODEL}", f"--saveEngine={ENGINE}", "--stronglyTyped", "--skipInference"],
        "inputs": described(signature.inputs),
        "outputs": described(signature.outputs),
    }
