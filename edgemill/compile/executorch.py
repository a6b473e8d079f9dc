"""Compile for ExecuTorch: the model as a PyTorch module, lowered to XNNPACK's kernels, int8 by PyTorch's quantizer."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
from executorch.exir import to_edge_transform_and_lower
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from edgemill.artifact import Signature, TensorSpec, size_of
from edgemill.compile import CompileSettings
from edgemill.compile.foreign import plain_answers
from edgemill.compile.torch_twin import answers, quiet_call, twin
from edgemill.compile.verify import compare, numbers_of, samples
from edgemill.data.dataset import Dataset, SplitName
from edgemill.recipe import Scheme
from edgemill.runtimes.executorch import RUNTIME, ExecuTorchModel
from edgemill.step import InputFile, OutputFile, Outputs, StepContext

CALIBRATION = 128
"""Most samples for PyTorch's quantizer; it takes them one by one."""


def run(settings: CompileSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Compile one fp32 ONNX model.

    Inputs:
        model: onnx, fp32.
        data: dataset; its calibration split quantizes, and is what the result is verified on.

    Outputs:
        model: executorch, a .pte file.

    Facts: `delegated` (graphs that XNNPACK runs), `left` (operators outside of them), `calibration_samples`,
    `runtime_version`, `size_bytes`, `twin_difference` (of the PyTorch module from the ONNX model, relative to the
    range of outputs), and of the comparison with the ONNX model in onnxruntime `max_difference`,
    `mean_difference`, `agreement`, `compared`.

    Raises:
        ToolchainError: pnnx or ExecuTorch fails, or the file gives other answers.
    """
    source, data = inputs["model"].path, Dataset(inputs["data"].path)
    with tempfile.TemporaryDirectory(dir=context.out) as name:
        model, entry = twin(source, Path(name))
    x = samples(data, Signature(inputs=(entry,), outputs=()))
    reference = plain_answers(source, x)
    context.report(0.3, "lowering to XNNPACK")
    bridge = compare(reference, answers(model, x, str(source)), "float", str(source))
    used = data.features(SplitName.CALIBRATION, 0, CALIBRATION) if settings.scheme is Scheme.INT8_STATIC else x[:0]
    edge, program = quiet_call("ExecuTorch", str(source), lambda: _lower(model, x[:1], used))
    path = context.out / "model.pte"
    path.write_bytes(program)
    context.report(0.8, "comparing with the model it was made from")
    compiled = ExecuTorchModel(path, _signature(entry, reference.shape[1:]))
    calls = Counter(_called(node) for node in edge.graph.nodes if node.op == "call_function")
    facts = {
        "target": settings.target.name,
        "delegated": calls.pop("executorch_call_delegate", 0),
        "left": sorted(name for name in calls if name not in ("getitem", "alloc")),
        "calibration_samples": len(used),
        "runtime_version": RUNTIME.version(),
        "size_bytes": size_of(path),
        "twin_difference": bridge["max_difference"],
    } | compare(reference, compiled.predict(x), numbers_of(settings.scheme), str(source))
    return Outputs({"model": OutputFile(path, "executorch", compiled.signature, facts)}, facts)


def _lower(model: torch.nn.Module, sample: Any, calibration: Any) -> tuple[Any, bytes]:
    example = (torch.from_numpy(sample),)
    exported = torch.export.export(model, example)
    if len(calibration):
        quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
        prepared = prepare_pt2e(exported.module(), quantizer)
        for index in range(len(calibration)):
            prepared(torch.from_numpy(calibration[index : index + 1]))
        exported = torch.export.export(convert_pt2e(prepared), example)
    edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    before = edge.exported_program()
    return before, bytes(edge.to_executorch().buffer)


def _called(node: Any) -> str:
    return str(getattr(node.target, "__name__", node.target))


def _signature(entry: TensorSpec, output: tuple[int, ...]) -> Signature:
    answer = TensorSpec(name="output", dtype="float32", shape=(1, *output))
    return Signature(inputs=(entry,), outputs=(answer,))
