"""Keras 2 `.h5` and `.keras` files."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from edgemill.errors import CheckpointError
from edgemill.ingest.detect import Format
from edgemill.ingest.export import keras_to_onnx
from edgemill.ingest.flatten import flatten
from edgemill.ingest.loaded import Loaded, Unbridged
from edgemill.ingest.precision import float32_copy
from edgemill.ingest.safety import require_finite, require_safe, require_safe_archive, require_safe_hdf5
from edgemill.recipe import Checkpoint
from edgemill.tf import keras


def load_keras2(path: Path, form: Format, settings: Checkpoint, work: Path) -> Loaded:
    """Load a Keras 2 file.

    Args:
        path: the file, under any name.
        form: KERAS2_H5 or KERAS2_ZIP.
        settings: trust and the size limit.
        work: folder for a copy.

    Raises:
        CheckpointError: it is damaged, unsafe, or not a model with one input.
    """
    config = read_config(path, form, settings.max_bytes)
    unsafe = require_safe(config, is_known, settings.trust, path.name)
    try:
        # Keras chooses its reader by the extension, and opens archives for writing.
        copy = work / ("original.h5" if form is Format.KERAS2_H5 else "original.keras")
        replaced = float32_copy(path, form, config, copy)
        model = keras.models.load_model(copy, compile=False, safe_mode=not settings.trust)
    except Exception as error:  # Keras raises anything on a damaged file
        raise CheckpointError(
            "Keras 2 cannot load the checkpoint.",
            where=path.name,
            expected="a model saved by tf_keras, or by Keras before version 3",
            got=f"{type(error).__name__}: {error}"[:2000],
            remedy="load it where it was trained and save it again with model.save('model.keras')",
        ) from error
    unbridged = [Unbridged(layer=part.layer, kind=part.kind, reason=part.reason) for part in unsafe]
    loaded = from_keras2(model, form, path.name, unbridged)
    loaded.notes |= {"replaced_precision": replaced} if replaced else {}
    return loaded


def from_keras2(model: Any, form: Format, where: str, unbridged: list[Unbridged]) -> Loaded:
    """A tf_keras model as a loaded checkpoint.

    Raises:
        CheckpointError: it is not built, has not exactly one input, or holds NaN.
    """
    inputs = getattr(model, "inputs", None)
    if not inputs or len(inputs) != 1:
        raise CheckpointError(
            "The model does not have exactly one input.",
            where=where,
            expected="a functional or sequential model with one input tensor",
            got=f"{len(inputs)} inputs" if inputs else "a model without defined inputs",
            remedy="wrap it in keras.Model(inputs, outputs) with one input and save that",
        )
    require_finite(((weight.name, weight.numpy()) for weight in model.weights), where)

    def original(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return first_output(model(x, training=False))

    flat, notes = _flat(model) if not unbridged else (None, {})
    return Loaded(
        form=form,
        original=original,
        input_shape=tuple(inputs[0].shape[1:]),
        write_onnx=lambda target, shape: keras_to_onnx(model, target, shape),
        keras=flat,
        unbridged=unbridged,
        vocabulary=vocabulary_of(model, inputs[0].dtype),
        notes={"checkpoint_parameters": int(model.count_params())} | notes,
    )


def _flat(model: Any) -> tuple[Any, dict[str, Any]]:
    """The model without nested models; as it is, with the reason noted, where that does not succeed."""
    try:
        return flatten(model), {}
    except Exception as error:  # noqa: BLE001  (Keras raises anything; the nested model is still good for most)
        return model, {"kept_nested": f"{type(error).__name__}: {error}"[:300]}


def first_output(answer: Any) -> NDArray[np.float32]:
    """First output of a Keras model as float32."""
    if isinstance(answer, dict):
        answer = next(iter(answer.values()))
    if isinstance(answer, (list, tuple)):
        answer = answer[0]
    return np.asarray(answer, dtype=np.float32)


def vocabulary_of(model: Any, dtype: Any) -> int | None:
    """Smallest input_dim of the Embedding layers, None if the model has none and takes real numbers."""
    sizes = [layer.input_dim for layer in _flatten(model) if type(layer).__name__ == "Embedding"]
    if sizes:
        return int(min(sizes))
    name = getattr(dtype, "name", str(dtype))
    if name == "uint8":
        return 256
    return 2 if name.startswith(("int", "uint", "bool")) else None


def _flatten(model: Any) -> list[Any]:
    layers = []
    for layer in model.layers:
        layers += _flatten(layer) if hasattr(layer, "layers") else [layer]
    return layers


def is_known(name: str) -> bool:
    """Whether a class or function name without module is one of Keras's own building blocks."""
    spaces = (
        keras.layers, keras.initializers, keras.regularizers, keras.constraints, keras.activations,
        keras.mixed_precision, keras.models,
    )  # fmt: skip
    return name == "Functional" or any(hasattr(space, name) for space in spaces)


def read_config(path: Path, form: Format, limit: int) -> Any:
    """The model's configuration as a JSON value, after the checks that need no framework.

    Raises:
        CheckpointError: the container is unsafe or damaged, or the configuration is no JSON.
    """
    try:
        if form in (Format.KERAS2_H5, Format.KERAS3_H5):
            with h5py.File(path, "r") as file:
                require_safe_hdf5(file, path.name, limit)
                text = file.attrs["model_config"]
        else:
            require_safe_archive(path, limit)
            with zipfile.ZipFile(path) as archive:
                text = archive.read("config.json")
                _check_weights(archive, path, limit)
        return json.loads(text)
    except CheckpointError:
        raise
    except Exception as error:  # h5py raises anything on damaged files; so does json on hostile text
        raise CheckpointError(
            "The checkpoint is damaged.",
            where=path.name,
            expected="a Keras model with its configuration",
            got=f"{type(error).__name__}: {error}"[:500],
            remedy="copy or save it again",
        ) from error


def _check_weights(archive: zipfile.ZipFile, path: Path, limit: int) -> None:
    if "model.weights.h5" not in archive.namelist():
        raise CheckpointError(
            "The archive holds no weights.",
            where=path.name,
            expected="model.weights.h5",
            got=", ".join(archive.namelist())[:300],
            remedy="save the model again with model.save('model.keras')",
        )
    with archive.open("model.weights.h5") as stream, h5py.File(stream, "r") as file:
        require_safe_hdf5(file, f"{path.name}: model.weights.h5", limit)
