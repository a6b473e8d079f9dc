"""Compile for ncnn: the program of the package pnnx turns ONNX into a graph and weights, and the answers are compared.

The package's own Python wrapper imports torch; its program needs none. Operators that it does not know are
left in the graph under their own name, with exit status 0, and the graph cannot be loaded.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import ncnn

from edgemill.artifact import Signature, TensorSpec, size_of
from edgemill.compile import CompileSettings
from edgemill.compile.foreign import plain_answers, run_program, single_sample
from edgemill.compile.verify import compare, numbers_of, samples
from edgemill.data.dataset import Dataset
from edgemill.errors import ToolchainError
from edgemill.recipe import Scheme
from edgemill.runtimes.ncnn import DESCRIPTION, GRAPH, RUNTIME, WEIGHTS, Description, NcnnModel
from edgemill.step import InputFile, OutputFile, Outputs, StepContext

PROGRAM_LIMIT_S = 600.0
_UNKNOWN = re.compile(r"^(?:todo|not supported|unsupported) (\S+)", re.MULTILINE)
_MOST_DIMENSIONS = 4


def run(settings: CompileSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Compile one ONNX model.

    Inputs:
        model: onnx in fp32, one input; the batch becomes 1.
        data: dataset; its calibration split is what the result is verified on.

    Outputs:
        model: ncnn, a folder with model.param, model.bin (float16 where that is the format) and
            model.json (`Description`).

    Facts: `op_counts`, `nodes`, `weights` (float32 or float16), `runtime_version`, `size_bytes`, and of the
    comparison with the ONNX model in onnxruntime `max_difference`, `mean_difference`, `agreement`,
    `compared`.

    Raises:
        ToolchainError: pnnx crashed, hung, or knows an operator not, ncnn cannot load the graph, or it
            gives other answers.
    """
    source, half = inputs["model"].path, settings.scheme is Scheme.FP16
    context.report(None, f"converting for {settings.target.name}")
    entry = single_sample(source)
    if len(entry.shape) - 1 > _MOST_DIMENSIONS:
        raise ToolchainError(
            "ncnn has no tensors of so many dimensions.",
            where=f"{source}, input {entry.name}",
            expected=f"at most {_MOST_DIMENSIONS} without the batch",
            got=str(entry.shape),
        )
    folder = context.out / "model"
    folder.mkdir()
    _convert(source, entry, folder, context.out / "scratch", half=half)
    x = samples(Dataset(inputs["data"].path), Signature(inputs=(entry,), outputs=()))
    wanted = plain_answers(source, x)
    signature = Signature(
        inputs=(entry.model_copy(update={"name": "in0"}),),
        outputs=(TensorSpec(name="out0", dtype="float32", shape=(1, *wanted.shape[1:])),),
    )
    (folder / DESCRIPTION).write_text(Description(signature=signature, half=half).model_dump_json(), encoding="utf-8")
    counts = _operators(folder / GRAPH)
    if strange := sorted(name for name in counts if ncnn.layer_to_index(name) < 0):
        raise ToolchainError(
            "The model has operators that ncnn does not have.", where=str(source), got=", ".join(strange)
        )
    context.report(0.7, "comparing with the model it was made from")
    answers = NcnnModel(folder, threads=1).predict(x)
    facts = {
        "target": settings.target.name,
        "op_counts": dict(sorted(counts.items())),
        "nodes": sum(counts.values()),
        "weights": "float16" if half else "float32",
        "runtime_version": RUNTIME.version(),
        "size_bytes": size_of(folder),
    } | compare(wanted, answers, numbers_of(settings.scheme), str(source))
    return Outputs(files={"model": OutputFile(folder, kind="ncnn", signature=signature, facts=facts)}, facts=facts)


def _convert(source: Path, entry: TensorSpec, folder: Path, scratch: Path, *, half: bool) -> None:
    """Run pnnx in a folder of its own, because it writes a dozen files beside what it is told."""
    scratch.mkdir()
    shape = ",".join(map(str, entry.shape))
    told = run_program(
        [
            _pnnx(),
            str(source.absolute()),
            f"inputshape=[{shape}]f32",
            f"fp16={int(half)}",
            f"ncnnparam={folder.absolute() / GRAPH}",
            f"ncnnbin={folder.absolute() / WEIGHTS}",
            *(f"{kind}={scratch.absolute() / f'm.{kind}'}" for kind in ("pnnxparam", "pnnxbin", "pnnxpy", "pnnxonnx")),
            f"ncnnpy={scratch.absolute() / 'm.py'}",
        ],
        scratch,
        PROGRAM_LIMIT_S,
        str(source),
    )
    if unknown := sorted(set(_UNKNOWN.findall(told))):
        raise ToolchainError(
            "The model has operators that pnnx does not convert.",
            where=str(source),
            got=", ".join(unknown),
            remedy="quantized graphs do not reach ncnn: use fp32 or fp16"
            if "QuantizeLinear" in unknown
            else "export the model with other operators",
        )
    if absent := [name for name in (GRAPH, WEIGHTS) if not (folder / name).is_file()]:
        raise ToolchainError("pnnx ended well and wrote nothing.", where=str(source), got=f"no {', no '.join(absent)}")


def _pnnx() -> str:
    spec = find_spec("pnnx")
    places = [] if spec is None else list(spec.submodule_search_locations or [])
    found = next((path for place in places if (path := Path(place) / "pnnx").is_file()), None)
    if found is None:
        raise ToolchainError("The program pnnx is not here.", where=sys.prefix, remedy="edgemill targets install ncnn")
    return str(found)


def _operators(graph: Path) -> Counter[str]:
    """How often each type of layer stands in a graph, from its lines: type, name, inputs, outputs, parameters."""
    lines = graph.read_text(encoding="utf-8", errors="replace").splitlines()[2:]
    return Counter(line.split()[0] for line in lines if line.strip())
