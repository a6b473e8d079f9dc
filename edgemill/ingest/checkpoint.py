"""Body of the step `ingest.checkpoint`: any accepted checkpoint to fp32 ONNX, and to Keras 2 if possible."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgemill.artifact import Signature
from edgemill.errors import CheckpointError, EdgemillError, ToolchainError
from edgemill.ingest.compare import Difference, probe, real_inputs, require_fit, worst
from edgemill.ingest.count import Counts, count
from edgemill.ingest.detect import Format, detect
from edgemill.ingest.export import save_keras
from edgemill.ingest.graph import OnnxFunction, ends_in_softmax
from edgemill.ingest.keras2 import from_keras2, load_keras2
from edgemill.ingest.loaded import Loaded, Unbridged
from edgemill.ingest.onnx_bridge import bridge_onnx, differing
from edgemill.ingest.onnx_file import load_onnx
from edgemill.ingest.safety import require_size
from edgemill.ingest.saved_model import load_saved_model
from edgemill.ingest.tf_checkpoint import load_tf_checkpoint
from edgemill.ingest.tflite_file import load_tflite
from edgemill.recipe import Checkpoint
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.tf import fresh, keras

# Formats that hold a graph of operators instead of a model: it is rebuilt from the operators.
_REBUILT = (Format.ONNX, Format.TFLITE, Format.SAVED_MODEL)


def run(settings: Checkpoint, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Ingest a checkpoint.

    Args:
        settings: `path` is not looked at; the content is `inputs["checkpoint"]`.
        inputs: `checkpoint`, a file or folder; and, if given, `data`, a dataset folder, which must
            fit the model and serves as real input of the comparisons.
        context: where to write.

    Returns:
        Files `onnx`; `keras` where the model can be trained further; `saved_model` where the
        LiteRT converter needs one; `tflite` where the source was TFLite.

    Raises:
        CheckpointError: the checkpoint is damaged, unsafe, of no accepted format, or unusable.
        DataError: the data does not fit the model.
        ToolchainError: the ONNX graph does not answer like the checkpoint.
    """
    fresh(context.seed)
    source = inputs["checkpoint"].path
    data = inputs["data"].path if "data" in inputs else None
    with tempfile.TemporaryDirectory(dir=context.out, prefix=".work-") as work:
        context.report(0.0, "detecting the format")
        require_size(source, settings.max_bytes)
        form = detect(source)
        context.report(0.1, f"loading {form}")
        loaded = _load(source, form, settings, Path(work), context.seed)
        return _write(loaded, data, settings, context)


def _load(path: Path, form: Format, settings: Checkpoint, work: Path, seed: int) -> Loaded:
    try:
        match form:
            case Format.KERAS2_H5 | Format.KERAS2_ZIP:
                return load_keras2(path, form, settings, work)
            case Format.KERAS3_H5 | Format.KERAS3_ZIP:
                from edgemill.ingest.keras3 import load_keras3  # Keras 3 costs seconds to import

                return load_keras3(path, form, settings, work, seed)
            case Format.SAVED_MODEL:
                return load_saved_model(path, settings)
            case Format.TF_CHECKPOINT:
                return load_tf_checkpoint(path, settings)
            case Format.ONNX:
                return load_onnx(path, work)
            case Format.TFLITE:
                return load_tflite(path, work)
    except EdgemillError:
        raise
    except Exception as error:  # a damaged file may break a framework anywhere
        raise CheckpointError(
            "The checkpoint cannot be loaded.",
            where=path.name,
            expected=f"an intact {form} checkpoint",
            got=f"{type(error).__name__}: {error}"[:1000],
            remedy="load it where it was trained, and save it again",
        ) from error


def _write(loaded: Loaded, data: Path | None, settings: Checkpoint, context: StepContext) -> Outputs:
    batches = [probe(loaded.input_shape, context.seed, loaded.vocabulary)]
    answer = _answer(loaded, batches[0])
    sample_shape = None if data is None else require_fit(data, loaded.input_shape, answer.shape[1:])
    if sample_shape is not None:
        batches = [probe(sample_shape, context.seed, loaded.vocabulary)]
    real = real_inputs(data)
    if real is not None and len(real):
        batches.append(real)

    context.report(0.4, "writing ONNX")
    path = context.out / "model.onnx"
    signature = loaded.write_onnx(path, sample_shape)
    exported = worst(loaded.original, OnnxFunction(path), batches)
    if not exported.relative <= settings.tolerance:
        raise ToolchainError(
            "The ONNX graph does not answer like the checkpoint.",
            where=f"{loaded.form} to ONNX",
            expected=f"largest difference over output range at most {settings.tolerance:g}",
            got=f"{exported.relative:.3g} (absolute {exported.absolute:.3g})",
            remedy="raise checkpoint.tolerance if that is acceptable",
        )
    proto = onnx.load(str(path))
    counts = count(proto, tuple(batches[0].shape[1:]))

    context.report(0.7, "writing Keras")
    if loaded.keras is None and loaded.form in _REBUILT:
        _rebuild(loaded, path, batches, settings.tolerance)
    files: dict[str, OutputFile] = {}
    twin = exported
    if loaded.keras is not None:
        files["keras"], twin = _write_keras(loaded, batches, settings, context, signature)
    facts = _facts(loaded, signature, counts) | {
        "max_abs_difference": max(twin.absolute, exported.absolute),
        "relative_difference": max(twin.relative, exported.relative),
        "compared_on": ["random", "real"][: len(batches)],
        "ends_in_softmax": ends_in_softmax(proto),
    }
    files["onnx"] = OutputFile(path, "onnx", signature, facts)
    if loaded.saved_model is not None:
        folder = context.out / "saved_model"
        if isinstance(loaded.saved_model, Path):
            shutil.copytree(loaded.saved_model, folder)
        else:
            loaded.saved_model(folder)
        files["saved_model"] = OutputFile(folder, "saved_model", signature)
    if loaded.tflite is not None:
        shutil.copyfile(loaded.tflite, context.out / "model.tflite")
        files["tflite"] = OutputFile(context.out / "model.tflite", "tflite", signature)
    context.report(1.0, f"{counts.parameters} parameters, {counts.macs} MACs")
    return Outputs(files=files, facts=facts)


def _rebuild(loaded: Loaded, path: Path, batches: list[NDArray[np.float32]], tolerance: float) -> None:
    """Get a Keras 2 model from the ONNX graph; what cannot be rebuilt goes on inference-only."""
    try:
        made = bridge_onnx(onnx.load(str(path)))
        unbridged = made.unbridged or differing(made, path, batches, tolerance)
        loaded.keras = None if unbridged else made.model
    except EdgemillError:
        raise
    except Exception as error:  # noqa: BLE001  (a graph that runs may still be odd enough to break a rebuild anywhere)
        loaded.keras = None
        unbridged = [Unbridged(layer=path.name, kind="graph", reason=f"{type(error).__name__}: {error}"[:500])]
    # A SavedModel's own reasons name layers that the user knows.
    if not unbridged or loaded.form is not Format.SAVED_MODEL:
        loaded.unbridged = unbridged


def _answer(loaded: Loaded, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The checkpoint's answers to random inputs, which must exist and be numbers."""
    try:
        answer = loaded.original(x)
    except EdgemillError:
        raise
    except Exception as error:  # the checkpoint's own framework raises anything
        raise CheckpointError(
            "The checkpoint cannot be run.",
            where=f"{loaded.form}, an input of shape {x.shape}",
            got=f"{type(error).__name__}: {error}"[:1000],
            remedy="run it where it was trained, and save it again",
        ) from error
    broken = int(answer.size - np.isfinite(answer).sum())
    if broken or answer.ndim == 0 or len(answer) != len(x):
        raise CheckpointError(
            "The checkpoint does not answer with one finite value or array per sample.",
            where=f"{loaded.form}, an input of shape {x.shape}",
            expected=f"{len(x)} finite answers",
            got=f"shape {answer.shape}, {broken} values NaN or infinite",
            remedy="give a checkpoint whose training did not diverge, and whose first axis is the batch",
        )
    return answer


def _write_keras(
    loaded: Loaded, batches: list[Any], settings: Checkpoint, context: StepContext, signature: Signature
) -> tuple[OutputFile, Difference]:
    """Save the Keras 2 model, load it back, and prove that the copy answers like the checkpoint."""
    path = context.out / "model.keras"
    save_keras(loaded.keras, path)
    again = from_keras2(keras.models.load_model(path, compile=False), loaded.form, path.name, [])
    twin = worst(loaded.original, again.original, batches)
    if not twin.relative <= settings.tolerance:
        raise ToolchainError(
            "The Keras 2 model does not answer like the checkpoint.",
            where="model.keras",
            expected=f"largest difference over output range at most {settings.tolerance:g}",
            got=f"{twin.relative:.3g} (absolute {twin.absolute:.3g})",
            remedy="raise checkpoint.tolerance if that is acceptable",
        )
    return OutputFile(path, "keras", signature), twin


def _facts(loaded: Loaded, signature: Signature, counts: Counts) -> dict[str, Any]:
    return {
        "format": str(loaded.form),
        "trainable": loaded.keras is not None,
        "parameters": counts.parameters,
        "macs": counts.macs,
        "uncounted": list(counts.uncounted),
        "unbridged": [item.to_dict() for item in loaded.unbridged],
        "inputs": [spec.model_dump(mode="json") for spec in signature.inputs],
        "outputs": [spec.model_dump(mode="json") for spec in signature.outputs],
    } | loaded.notes
