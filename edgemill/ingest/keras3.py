"""Keras 3 `.keras` and `.h5` files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.errors import CheckpointError
from edgemill.ingest.bridge import bridge, compare
from edgemill.ingest.compare import probe
from edgemill.ingest.detect import Format
from edgemill.ingest.export import function_to_onnx, keras_to_onnx
from edgemill.ingest.keras2 import first_output, read_config, vocabulary_of
from edgemill.ingest.loaded import Loaded, Unbridged
from edgemill.ingest.precision import float32_copy
from edgemill.ingest.safety import require_finite, require_safe
from edgemill.recipe import Checkpoint
from edgemill.tf import tf

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras as keras3


def load_keras3(path: Path, form: Format, settings: Checkpoint, work: Path, seed: int) -> Loaded:
    """Load a Keras 3 file, and rebuild it in Keras 2 as far as that goes.

    Args:
        path: the file, under any name.
        form: KERAS3_ZIP or KERAS3_H5.
        settings: trust, size limit and tolerance.
        work: folder for a copy.
        seed: of the random input on which both are compared.

    Raises:
        CheckpointError: it is damaged, unsafe, or not a model with one input.
    """
    config = read_config(path, form, settings.max_bytes)
    parts = require_safe(config, is_known, settings.trust, path.name)
    unsafe = [Unbridged(layer=part.layer, kind=part.kind, reason=part.reason) for part in parts]
    keras3.utils.clear_session()
    keras3.utils.set_random_seed(seed)
    copy = work / ("original.h5" if form is Format.KERAS3_H5 else "original.keras")
    replaced = float32_copy(path, form, config, copy)
    try:
        model = keras3.saving.load_model(copy, compile=False, safe_mode=not settings.trust)
    except Exception as error:  # Keras raises anything on a damaged file
        raise CheckpointError(
            "Keras 3 cannot load the checkpoint.",
            where=path.name,
            expected=f"a model saved by Keras 3 up to {keras3.__version__}",
            got=f"{type(error).__name__}: {error}"[:2000],
            remedy="load it where it was trained and save it again with model.save('model.keras')",
        ) from error
    _require_one_input(model, path.name)
    require_finite(((weight.path, np.asarray(weight)) for weight in model.weights), path.name)
    loaded = _bridged(model, form, settings, seed, unsafe)
    loaded.notes |= {"replaced_precision": replaced} if replaced else {}
    return loaded


def _bridged(model: Any, form: Format, settings: Checkpoint, seed: int, unsafe: list[Unbridged]) -> Loaded:
    shape = tuple(model.inputs[0].shape[1:])
    vocabulary = vocabulary_of(model, model.inputs[0].dtype)
    made = bridge(model)
    unbridged = made.unbridged or unsafe
    if not unbridged:
        unbridged = compare(model, made, probe(shape, seed, vocabulary), settings.tolerance)
    twin = None if unbridged else made.model

    def original(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return first_output(model(tf.constant(x), training=False))

    def write_onnx(target: Path, fixed: tuple[int, ...] | None) -> Any:
        if twin is not None:
            return keras_to_onnx(twin, target, fixed)
        name, names = model.inputs[0].name, list(model.output_names)
        return function_to_onnx(lambda x: model(x, training=False), name, fixed or shape, names, target)

    return Loaded(
        form=form,
        original=original,
        input_shape=shape,
        write_onnx=write_onnx,
        keras=twin,
        unbridged=unbridged,
        saved_model=None if twin is not None else lambda folder: model.export(str(folder), verbose=False),
        vocabulary=vocabulary,
        notes={"checkpoint_parameters": int(model.count_params())},
    )


def _require_one_input(model: Any, where: str) -> None:
    inputs = getattr(model, "inputs", None)
    if not inputs or len(inputs) != 1:
        raise CheckpointError(
            "The model does not have exactly one input.",
            where=where,
            expected="a built model with one input tensor",
            got=f"{len(inputs)} inputs" if inputs else "a model without defined inputs",
            remedy="wrap it in keras.Model(inputs, outputs) with one input and save that",
        )


def is_known(name: str) -> bool:
    """Whether a class or function name without module is one of Keras 3's own building blocks."""
    spaces = (
        keras3.layers, keras3.initializers, keras3.regularizers, keras3.constraints, keras3.activations,
        keras3.dtype_policies, keras3.models,
    )  # fmt: skip
    return name == "Functional" or any(hasattr(space, name) for space in spaces)
