"""Compile for QNN: an ONNX model by Qualcomm's rules with the options of its execution provider beside it.

A device makes its own graph of it when it loads the file. The same library, whose x86-64 build emulates the HTP,
does so here: every operator must be taken, none is left to the CPU, and the answers are compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import onnx

from edgemill.artifact import size_of
from edgemill.compile import CompileSettings
from edgemill.compile.foreign import plain_answers
from edgemill.compile.onnx_graph import op_counts, opset_of, read_onnx
from edgemill.compile.qnn_graph import adapt
from edgemill.compile.qnn_rules import violations
from edgemill.compile.verify import compare, numbers_of, samples
from edgemill.data.dataset import Dataset
from edgemill.errors import ToolchainError
from edgemill.evidence import DeviceFigures
from edgemill.runtimes.qnn import CONFIG, MODEL, PROVIDER, RUNTIME, QnnModel
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.targets.spec import Target


def run(settings: CompileSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Adapt one ONNX model, check it against the rules, and load it on the emulated NPU.

    Inputs:
        model: onnx; fp32, which the HTP calculates in fp16, or with QDQ pairs.
        data: dataset; its calibration split is what the result is compared on.

    Outputs:
        model: qnn, a folder with model.onnx and qnn.json.

    Facts: `op_counts`, `opset`, `rules` (what was checked against), `assigned` (number of operators by execution
    provider), `runtime_version`, `size_bytes`, `device`, and of the comparison with the source in onnxruntime
    `max_difference`, `mean_difference`, `agreement`, `compared`.

    Raises:
        ToolchainError: the graph cannot be adapted, breaks a rule, leaves operators to the CPU, or answers otherwise.
    """
    source, target = inputs["model"].path, settings.target
    context.report(None, f"adapting for {target.name}")
    model = adapt(read_onnx(source), str(source))
    if broken := violations(model):
        raise ToolchainError(
            "The model does not keep the rules of QNN.",
            where=str(source),
            got="; ".join(broken[:10]),
            remedy="choose another number format, or export the model without these operators",
        )
    folder = context.out / "model"
    folder.mkdir()
    onnx.save(model, str(folder / MODEL))
    (folder / CONFIG).write_text(json.dumps(load_options(target), indent=1) + "\n", encoding="utf-8")
    context.report(0.3, "preparing it for the emulated NPU")
    compiled = QnnModel(folder)
    shared = {provider: len(names) for provider, names in compiled.assigned.items()}
    on_cpu = sorted({name for provider, names in compiled.assigned.items() if provider != PROVIDER for name in names})
    device = DeviceFigures(
        source=f"simulated:{target.execution.name}",
        flash_bytes=size_of(folder / MODEL),
        npu_share=shared.get(PROVIDER, 0) / max(1, sum(shared.values())),
        cpu_operators=tuple(on_cpu),
        notes=("flash: the ONNX file", "the emulator tells no times"),
    )
    context.report(0.6, "comparing with the model it was made from")
    x = samples(Dataset(inputs["data"].path), compiled.signature)
    facts = {
        "target": target.name,
        "op_counts": op_counts(model),
        "opset": opset_of(model),
        "rules": "onnxruntime, QNN execution provider and get_qnn_qdq_config",
        "assigned": shared,
        "runtime_version": RUNTIME.version(),
        "size_bytes": size_of(folder),
        "device": device.model_dump(mode="json"),
    } | compare(
        plain_answers(source, x),
        compiled.predict(x),
        "half" if settings.scheme is None else numbers_of(settings.scheme),
        str(source),
    )
    return Outputs({"model": OutputFile(folder, "qnn", compiled.signature, facts)}, facts)


def load_options(target: Target) -> dict[str, Any]:
    """With which options a device of the target's class loads the model; no operator may fall back to its CPU."""
    chip = {name: target.options[name] for name in ("soc_model", "htp_arch") if name in target.options}
    return {
        "execution_provider": PROVIDER,
        "provider_options": {
            "backend_type": "htp",
            **chip,
            "htp_performance_mode": "burst",
            "enable_htp_fp16_precision": "1",
            "offload_graph_io_quantization": "0",
        },
        "session_options": {"session.disable_cpu_ep_fallback": "1"},
    }
