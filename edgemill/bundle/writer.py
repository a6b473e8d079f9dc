"""Writing a bundle: complete or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgemill.artifact import digest_path, size_of
from edgemill.bundle.manifest import MANIFEST, BundledVariant, Manifest
from edgemill.errors import InvariantError, StoreError
from edgemill.files import locked, make_writable, remove
from edgemill.recipe import Preprocess, Task
from edgemill.summary import TargetResult, VariantResult
from edgemill.targets.spec import Target

SUFFIXES = {
    "onnx": ".onnx",
    "tflite": ".tflite",
    "tflite-micro": ".tflite",
    "vela": ".tflite",
    "iree": ".vmfb",
    "tvm": ".so",
    "rknn": ".rknn",
    "executorch": ".pte",
    "coreml": ".mlpackage",
    "tensorrt": "",
    "openvino": "",
    "ort": "",
    "qnn": "",
    "ncnn": "",
    "c": "",
}
"""End of the name by kind of file; folders have none."""


@dataclass(frozen=True)
class Origin:
    """What a family was made from.

    Attributes:
        model: name of the model.
        task: what it answers.
        preprocess: what turns a stored sample into the model's input.
        checkpoint_digest: of the ingested checkpoint.
        data_digest: of the dataset.
    """

    model: str
    task: Task
    preprocess: Preprocess
    checkpoint_digest: str
    data_digest: str


def write_bundle(
    folder: Path, result: TargetResult, target: Target, files: Mapping[str, Path], origin: Origin
) -> Manifest:
    """Write the passing variants of a target and their manifest.

    Args:
        folder: of the bundle; replaced as a whole if it exists.
        result: of the target; its selected variant becomes the default.
        target: the target itself.
        files: compiled file of every passing variant by digest.
        origin: what the family was made from.

    Returns:
        The manifest as written.

    Raises:
        InvariantError: nothing passed, or a file is not what its digest says.
        StoreError: the folder cannot be written.
    """
    manifest = _manifest(result, target, origin)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent):
            for leftover in folder.parent.glob(f".{folder.name}.*"):
                remove(leftover)  # of a writer that was killed
            fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            try:
                for variant in manifest.variants:
                    _place(files, variant, fresh / variant.file)
                (fresh / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
                fresh.chmod(0o755)
                if folder.exists():
                    folder.replace(fresh.with_suffix(".old"))
                fresh.replace(folder)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
                shutil.rmtree(fresh.with_suffix(".old"), ignore_errors=True)
    except OSError as error:
        raise StoreError(
            "The bundle cannot be written.",
            where=str(folder),
            got=str(error),
            remedy="free space or give another folder",
        ) from error
    return manifest


def _manifest(result: TargetResult, target: Target, origin: Origin) -> Manifest:
    default = result.selected_variant
    if default is None or default.digest is None:
        raise InvariantError("A bundle needs a variant that passed the gate.", where=result.target)
    if result.target != target.name:
        raise InvariantError("The result is of another target.", expected=target.name, got=result.target)
    passing = [default, *(variant for variant in result.variants if variant.passed and variant is not default)]
    return Manifest(
        model=origin.model,
        task=origin.task,
        preprocess=origin.preprocess,
        target=target.name,
        target_digest=target.digest,
        arch=target.arch,
        runtime=target.runtime,
        checkpoint_digest=origin.checkpoint_digest,
        data_digest=origin.data_digest,
        baseline_accuracy=result.baseline.accuracy if result.baseline else None,
        default=default.digest,
        variants=tuple(_bundled(variant) for variant in passing),
    )


def _bundled(variant: VariantResult) -> BundledVariant:
    missing = [name for name in ("digest", "profile", "verdict", "accuracy") if getattr(variant, name) is None]
    if (
        variant.kind not in SUFFIXES
        or variant.digest is None
        or variant.profile is None
        or variant.verdict is None
        or variant.accuracy is None
    ):
        raise InvariantError(
            "A passing variant lacks what its bundle must say.",
            where=f"{variant.target}, {variant.candidate}",
            expected=f"kind {' or '.join(SUFFIXES)}",
            got=f"kind {variant.kind}, without {', '.join(missing) or 'nothing'}",
        )
    return BundledVariant(
        candidate=variant.candidate,
        file=variant.candidate + SUFFIXES[variant.kind],
        kind=variant.kind,
        scheme=variant.scheme,
        digest=variant.digest,
        size_bytes=variant.profile.size_bytes,
        signature=variant.signature,
        profile=variant.profile,
        verdict=variant.verdict,
        checks=variant.checks,
        arithmetic=variant.arithmetic,
        versions=variant.versions,
        accuracy=variant.accuracy,
    )


def _place(files: Mapping[str, Path], variant: BundledVariant, destination: Path) -> None:
    source = files.get(variant.digest)
    if source is None:
        raise InvariantError("The file of a passing variant was not given.", where=variant.candidate)
    if source.is_dir():
        shutil.copytree(source, destination)
        make_writable(destination)
    else:
        shutil.copyfile(source, destination)
    found = digest_path(destination)
    if found != variant.digest or size_of(destination) != variant.size_bytes:
        raise InvariantError(
            "The file of a variant is not the one that was gated.",
            where=str(source),
            expected=f"sha256 {variant.digest}, {variant.size_bytes} bytes",
            got=f"sha256 {found}, {size_of(destination)} bytes",
        )
