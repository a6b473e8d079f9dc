"""Compile with IREE: ONNX becomes a module with machine code for the CPUs of the target's class.

The same graph is also compiled for this machine and its answers are compared, so that a compiler that breaks
the model is found where the target's own file cannot run.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import onnx

from edgemill.artifact import Signature, TensorSpec, size_of
from edgemill.compile import CompileSettings
from edgemill.compile.foreign import plain_answers, run_program, single_sample
from edgemill.compile.verify import compare, numbers_of, samples
from edgemill.data.dataset import Dataset
from edgemill.errors import InvariantError, ToolchainError
from edgemill.evidence import DeviceFigures
from edgemill.runtimes.iree import FUNCTION, RUNTIME, SIGNATURE, IreeModel
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.targets.spec import Llvm, Target

IMPORT_LIMIT_S = 300.0
COMPILE_LIMIT_S = 1200.0
_OPSET = 17
"""IREE's importer brings older graphs to this opset; newer ones stay as they are."""
_OPERATOR = 'torch.operator "onnx.'


def run(settings: CompileSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Compile one ONNX model.

    Inputs:
        model: onnx, one float32 input; the batch becomes 1.
        data: dataset; its calibration split is what the result is verified on.

    Outputs:
        model: iree, a module for the target's CPU.

    Facts: `op_counts` (of the imported graph), `nodes`, `llvm` (for which CPU), `runtime_version`,
    `size_bytes`, `host_size_bytes` (of the module for this machine), `device` (`DeviceFigures`), and of the
    comparison of the module for this machine with the ONNX model in onnxruntime `max_difference`,
    `mean_difference`, `agreement`, `compared`.

    Raises:
        ToolchainError: IREE crashed, hung, or does not know an operator, or the module for this machine
            gives other answers.
    """
    source, target = inputs["model"].path, settings.target
    llvm = _llvm(target)
    entry = single_sample(source)
    x = samples(Dataset(inputs["data"].path), Signature(inputs=(entry,), outputs=()))
    wanted = plain_answers(source, x)
    signature = Signature(
        inputs=(entry,), outputs=(TensorSpec(name="output", dtype="float32", shape=(1, *wanted.shape[1:])),)
    )
    scratch = context.out / "scratch"
    scratch.mkdir()
    context.report(None, "importing")
    graph = _import(source, signature, scratch)
    context.report(0.1, "compiling for this machine")
    host = scratch / "host.vmfb"
    _compile(graph, host, ["--iree-llvmcpu-target-cpu=host"], str(source))
    context.report(0.5, "comparing with the model it was made from")
    agreement = compare(wanted, IreeModel(host, threads=1).predict(x), numbers_of(settings.scheme), str(source))
    context.report(0.6, f"compiling for {target.name}")
    path = context.out / "model.vmfb"
    _compile(graph, path, _options(llvm), str(source))
    counts = _operators(graph)
    device = DeviceFigures(
        source="compiled:iree",
        flash_bytes=size_of(path),
        notes=("flash: the module alone, without IREE's runtime", "RAM and time are not known without a device"),
    )
    facts = {
        "target": target.name,
        "op_counts": dict(sorted(counts.items())),
        "nodes": sum(counts.values()),
        "llvm": llvm.model_dump(mode="json"),
        "runtime_version": RUNTIME.version(),
        "size_bytes": size_of(path),
        "host_size_bytes": size_of(host),
        "device": device.model_dump(mode="json"),
    } | agreement
    return Outputs(files={"model": OutputFile(path, kind="iree", signature=signature, facts=facts)}, facts=facts)


def _llvm(target: Target) -> Llvm:
    if target.llvm is None:
        raise InvariantError("The target does not say for which CPU.", where=f"target {target.name}", expected="llvm")
    return target.llvm


def _import(source: Path, signature: Signature, scratch: Path) -> Path:
    """ONNX as MLIR, with a batch of one, and with the signature where the module keeps it."""
    model = onnx.load(source)
    for value in (*model.graph.input, *model.graph.output):
        batch = value.type.tensor_type.shape.dim[0]
        batch.Clear()
        batch.dim_value = 1
    del model.graph.value_info[:]  # of a free batch
    model.graph.name = FUNCTION
    fixed, graph = scratch / "fixed.onnx", scratch / "model.mlir"
    onnx.save(model, str(fixed))
    run_program(
        [_program("iree-import-onnx"), str(fixed), "--opset-version", str(_OPSET), "-o", str(graph)],
        scratch,
        IMPORT_LIMIT_S,
        str(source),
    )
    text = graph.read_text(encoding="utf-8")
    opening = f"func.func @{FUNCTION}("
    line = next((each for each in text.splitlines() if opening in each), "")
    if " attributes {" not in line:
        raise ToolchainError("IREE's importer wrote another graph than it should.", where=str(source), got=line[:200])
    table = f"iree.reflection = {{{json.dumps(SIGNATURE)} = {_as_mlir(signature.model_dump_json())}}}"
    graph.write_text(text.replace(line, line.replace(" attributes {", f" attributes {{{table}, ", 1), 1), "utf-8")
    return graph


def _as_mlir(text: str) -> str:
    """A string of MLIR, in which everything but plain characters is written as two hexadecimal digits."""
    plain = "".join(chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:02X}" for byte in text.encode())
    return f'"{plain}"'


def _compile(graph: Path, path: Path, cpu: list[str], where: str) -> None:
    options = ["--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu", *cpu]
    # a name without its folder: the module keeps it
    command = [_program("iree-compile"), graph.name, *options, "-o", str(path.absolute())]
    run_program(command, graph.parent, COMPILE_LIMIT_S, where)
    if not path.is_file() or path.stat().st_size == 0:
        raise ToolchainError("iree-compile ended well and wrote nothing.", where=where)


def _options(llvm: Llvm) -> list[str]:
    options = [f"--iree-llvmcpu-target-triple={llvm.triple}", f"--iree-llvmcpu-target-cpu={llvm.cpu}"]
    if llvm.features:
        options.append(f"--iree-llvmcpu-target-cpu-features={','.join(llvm.features)}")
    if llvm.abi:
        options.append(f"--iree-llvmcpu-target-abi={llvm.abi}")
    return options


def _operators(graph: Path) -> Counter[str]:
    lines = graph.read_text(encoding="utf-8").splitlines()
    found = Counter(line.partition(_OPERATOR)[2].partition('"')[0] for line in lines if _OPERATOR in line)
    del found["Constant"]
    return found


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)
