"""Compile with Apache TVM: ONNX becomes a shared library for the CPUs of the target's class.

Nothing is tuned: kernels come from TVM's default schedules. Quantized graphs keep their rounding, but their
products are calculated in floating point (TVM 0.27 multiplies what DequantizeLinear gives), which the fact
`precisions` shows.
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx

from edgemill.artifact import Signature, TensorSpec, size_of
from edgemill.compile import CompileSettings
from edgemill.compile.foreign import plain_answers, run_program, single_sample
from edgemill.compile.verify import INTEGER_SCHEMES, compare, numbers_of, samples
from edgemill.data.dataset import Dataset
from edgemill.errors import InvariantError, ToolchainError
from edgemill.runtimes.single import last_words
from edgemill.runtimes.tvm import RUNTIME, SIGNATURE, TvmModel
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.targets.cpu import architecture
from edgemill.targets.spec import Target

PIPELINE = "zero"
"""TVM's default pipeline: it legalizes, folds and fuses."""
LINKER = "g++"
LINK_LIMIT_S = 300.0
_PRODUCTS = ("conv", "matmul", "dense")


def run(settings: CompileSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Compile one ONNX model.

    Inputs:
        model: onnx, one float32 input; the batch becomes 1.
        data: dataset; its calibration split is what the result is verified on.

    Outputs:
        model: tvm, a shared library.

    Facts: `precisions` (in which type the kernels of products add up, by number of kernels), `float_nodes`
    (of an int8 model: those kernels that do so in floating point), `nodes` (kernels), `runtime_version`,
    `size_bytes`, and of the comparison with the ONNX model in onnxruntime `max_difference`,
    `mean_difference`, `agreement`, `compared`.

    Raises:
        ToolchainError: TVM does not know an operator, or fails, or the library gives other answers, or this
            machine is of another kind than the target and cannot run it.
    """
    source, target = inputs["model"].path, settings.target
    _check_machine(target)
    context.report(None, f"compiling for {target.name}")
    entry = single_sample(source)
    x = samples(Dataset(inputs["data"].path), Signature(inputs=(entry,), outputs=()))
    wanted = plain_answers(source, x)
    signature = Signature(
        inputs=(entry,), outputs=(TensorSpec(name="output", dtype="float32", shape=(1, *wanted.shape[1:])),)
    )
    path = context.out / "model.so"
    kernels = _compile(source, entry, target, path, signature)
    context.report(0.7, "comparing with the model it was made from")
    answers = TvmModel(path, threads=1).predict(x)
    facts = {
        "target": target.name,
        "precisions": dict(sorted(Counter(kernels.values()).items())),
        "float_nodes": [name for name, kind in kernels.items() if kind.startswith("float")]
        if settings.scheme in INTEGER_SCHEMES
        else [],
        "nodes": len(kernels),
        "runtime_version": RUNTIME.version(),
        "size_bytes": size_of(path),
    } | compare(wanted, answers, numbers_of(settings.scheme), str(source))
    return Outputs(files={"model": OutputFile(path, kind="tvm", signature=signature, facts=facts)}, facts=facts)


def _check_machine(target: Target) -> None:
    if target.llvm is None:
        raise InvariantError("The target does not say for which CPU.", where=f"target {target.name}", expected="llvm")
    if architecture(platform.machine()) != architecture(target.arch):
        raise ToolchainError(
            "A library of TVM runs on its own kind of CPU only, and would ship unseen.",
            where=f"target {target.name}",
            expected=f"a machine with {target.arch}",
            got=platform.machine(),
        )


def _compile(source: Path, entry: TensorSpec, target: Target, path: Path, signature: Signature) -> dict[str, str]:
    """Write the library; returns the kernels of products and in which type they add up."""
    assert target.llvm is not None
    kind = {"kind": "llvm", "mtriple": target.llvm.triple, "mcpu": target.llvm.cpu}
    if target.llvm.features:
        kind["mattr"] = list(target.llvm.features)  # type: ignore[assignment]
    try:
        module = from_onnx(onnx.load(source), shape_dict={entry.name: list(entry.shape)}, keep_params_in_input=False)
        with tvm.target.Target(kind) as device:
            module = relax.get_pipeline(PIPELINE)(module)
            built = relax.build(module, device)
            workspace = path.parent / "scratch"
            workspace.mkdir()
            text = workspace / "signature.cc"
            text.write_text(_as_c(signature), encoding="ascii")
            built.export_library(str(path), fcompile=_link, addons=[str(text)], workspace_dir=str(workspace))
    except ToolchainError:
        raise
    except Exception as error:  # TVM's front ends raise exceptions of every kind
        raise ToolchainError(
            "TVM cannot compile the model.", where=str(source), got=f"{type(error).__name__}: {last_words(str(error))}"
        ) from error
    return _products(module)


def _link(path: str, files: list[str], **_: Any) -> None:
    options = ["-shared", "-fPIC", "-s", "-Wl,--build-id=none"]
    run_program([LINKER, *options, "-o", path, *files], Path(path).parent, LINK_LIMIT_S, path)


def _as_c(signature: Signature) -> str:
    text = json.dumps(signature.model_dump_json())  # a JSON string of ASCII is a C string
    return f'extern "C" {{ __attribute__((visibility("default"))) extern const char {SIGNATURE}[] = {text}; }}\n'


def _products(module: Any) -> dict[str, str]:
    """Kernels that multiply and add, by name, with the type of the sum."""
    found: dict[str, str] = {}
    for name, function in module.functions.items():
        title = name.name_hint
        if isinstance(function, tvm.tirx.PrimFunc) and any(word in title for word in _PRODUCTS):
            found[title] = _sum_type(function)
    return found


def _sum_type(function: Any) -> str:
    """Element type of the first sum in a kernel: of the first block that has an initial value."""
    waiting = [function.body]
    while waiting:
        node = waiting.pop(0)
        if getattr(node, "init", None) is not None:
            return str(node.init.buffer.dtype)
        waiting += [child for name in ("block", "body") if (child := getattr(node, name, None)) is not None]
        waiting += list(getattr(node, "seq", None) or [])
    return "unknown"
