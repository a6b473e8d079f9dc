"""Compile for Core ML: the model as a PyTorch module, traced and converted to an ML program.

Core ML runs on Apple's systems only. What can be proven here is that the module which is converted answers as the
ONNX model does; the converted file itself is not run and never passes.
"""

from __future__ import annotations

import json
import tempfile
import uuid
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import coremltools
import torch

from edgemill.artifact import Signature, TensorSpec, size_of
from edgemill.compile import CompileSettings
from edgemill.compile.foreign import plain_answers
from edgemill.compile.torch_twin import answers, quiet_call, twin
from edgemill.compile.verify import compare, samples
from edgemill.data.dataset import Dataset
from edgemill.errors import ToolchainError
from edgemill.recipe import Scheme
from edgemill.step import InputFile, OutputFile, Outputs, StepContext

OUTPUT = "output"
MANIFEST = "Manifest.json"


def run(settings: CompileSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Convert one fp32 ONNX model.

    Inputs:
        model: onnx, fp32.
        data: dataset; its calibration split is what the PyTorch module is compared on.

    Outputs:
        model: coreml, an .mlpackage folder.

    Facts: `op_counts` (of the ML program), `specification` (version of Core ML's format), `minimum_ios`,
    `converter_version`, `size_bytes`, and of the comparison of the PyTorch module (not of the package) with the ONNX
    model `twin_difference`, `twin_agreement`, `twin_compared`.

    Raises:
        ToolchainError: pnnx or coremltools fails, or the module gives other answers.
    """
    source, target = inputs["model"].path, settings.target
    with tempfile.TemporaryDirectory(dir=context.out) as name:
        model, entry = twin(source, Path(name))
    x = samples(Dataset(inputs["data"].path), Signature(inputs=(entry,), outputs=()))
    reference = plain_answers(source, x)
    bridge = compare(reference, answers(model, x, str(source)), "float", str(source))
    context.report(0.4, "converting for Core ML")
    half = settings.scheme is Scheme.FP16
    converted = quiet_call("coremltools", str(source), lambda: _convert(model, entry, x[:1], half))
    folder = context.out / "model.mlpackage"
    quiet_call("coremltools", str(source), lambda: converted.save(str(folder)))
    settle(folder)
    spec = converted.get_spec()
    answer = TensorSpec(name=OUTPUT, dtype="float32", shape=(1, *reference.shape[1:]))
    facts = {
        "target": target.name,
        "op_counts": _operators(spec),
        "specification": int(spec.specificationVersion),
        "minimum_ios": target.runtime.minimum,
        "converter_version": coremltools.__version__,
        "size_bytes": size_of(folder),
        "twin_difference": bridge["max_difference"],
        "twin_agreement": bridge["agreement"],
        "twin_compared": bridge["compared"],
    }
    signature = Signature(inputs=(entry,), outputs=(answer,))
    return Outputs({"model": OutputFile(folder, "coreml", signature, facts)}, facts)


def settle(folder: Path) -> None:
    """Make a package the same in every run: its identifiers are drawn by chance, one file is for its owner only.

    Raises:
        ToolchainError: the package is not what Core ML describes.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        names = {old: str(uuid.uuid5(uuid.NAMESPACE_URL, entry["path"])) for old, entry in _items(manifest)}
        manifest["itemInfoEntries"] = {names[old]: entry for old, entry in sorted(_items(manifest), key=_place)}
        manifest["rootModelIdentifier"] = names[manifest["rootModelIdentifier"]]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ToolchainError("The Core ML package has no valid manifest.", where=str(path), got=str(error)) from error
    path.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o644)


def _items(manifest: Mapping[str, Any]) -> Any:
    return manifest["itemInfoEntries"].items()


def _place(item: tuple[str, Mapping[str, str]]) -> str:
    return item[1]["path"]


def _convert(model: torch.nn.Module, entry: TensorSpec, sample: Any, half: bool) -> Any:
    traced = torch.jit.trace(model, torch.from_numpy(sample))
    return coremltools.convert(
        traced,
        inputs=[coremltools.TensorType(name=entry.name, shape=entry.shape)],
        outputs=[coremltools.TensorType(name=OUTPUT)],
        minimum_deployment_target=coremltools.target.iOS17,
        compute_precision=coremltools.precision.FLOAT16 if half else coremltools.precision.FLOAT32,
        convert_to="mlprogram",
        skip_model_load=True,
    )


def _operators(spec: Any) -> dict[str, int]:
    blocks = [block for f in spec.mlProgram.functions.values() for block in f.block_specializations.values()]
    counts = Counter(op.type for block in blocks for op in block.operations if op.type != "const")
    return dict(sorted(counts.items()))
