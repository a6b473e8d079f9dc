"""TensorFlow checkpoints: variables only, for a model that a function of the user builds."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from edgemill.errors import CheckpointError, RecipeError
from edgemill.ingest.detect import Format, checkpoint_prefixes, index_of
from edgemill.ingest.keras2 import from_keras2
from edgemill.ingest.loaded import Loaded
from edgemill.recipe import Checkpoint
from edgemill.tf import keras, tf


def load_tf_checkpoint(path: Path, settings: Checkpoint) -> Loaded:
    """Build the model with the user's function and read its variables.

    Args:
        path: checkpoint prefix, or a folder with one checkpoint or with a `checkpoint` file that names the latest.
        settings: `model_function`, called without arguments, returns a built tf_keras model.

    Raises:
        CheckpointError: the checkpoint is damaged or belongs to another model.
        RecipeError: there is no model function, or it does not return a tf_keras model.
    """
    prefix = _prefix(path)
    model = _build(settings.model_function, path.name)
    try:
        names = {name for name, _ in tf.train.list_variables(str(prefix))}
        # tf.train.Checkpoint(model=model) puts everything under "model/"; model.save_weights does not.
        nested = any(name.startswith("model/") for name in names)
        target = tf.train.Checkpoint(model=model) if nested else tf.train.Checkpoint(model)
        status = target.read(str(prefix)).expect_partial()
        status.assert_existing_objects_matched()
    except Exception as error:  # TensorFlow raises anything on damaged or foreign checkpoints
        raise CheckpointError(
            "The checkpoint cannot be read into the model.",
            where=prefix.name,
            expected=f"the variables of the model that {settings.model_function} builds",
            got=f"{type(error).__name__}: {error}"[:1000],
            remedy="check that checkpoint.model_function builds exactly the model that was trained",
        ) from error
    return from_keras2(model, Format.TF_CHECKPOINT, prefix.name, [])


def _prefix(path: Path) -> Path:
    if not path.is_dir():
        return path
    prefixes = checkpoint_prefixes(path)
    if len(prefixes) == 1:
        return prefixes[0]
    state = tf.train.get_checkpoint_state(str(path))
    if state is not None:  # it may hold the absolute path of another machine: only the name counts
        latest = path / Path(state.model_checkpoint_path).name
        if index_of(latest).is_file():
            return latest
    raise CheckpointError(
        "The folder holds several checkpoints.",
        where=path.name,
        expected="one checkpoint, or a file `checkpoint` that names the latest",
        got=", ".join(prefix.name for prefix in prefixes),
        remedy="give the prefix of one of them as checkpoint.path",
    )


def _build(reference: str | None, where: str) -> Any:
    if reference is None:
        raise RecipeError(
            "A TensorFlow checkpoint holds variables but no model.",
            where="checkpoint.model_function",
            expected="python:module:function that builds the model",
            got=f"nothing, for the checkpoint {where}",
            remedy="set checkpoint.model_function, or give the whole model: model.save('model.keras')",
        )
    _, module, name = reference.split(":")
    try:
        model = getattr(importlib.import_module(module), name)()
    except Exception as error:  # the user's own code may raise anything
        raise RecipeError(
            "The model function failed.",
            where=f"checkpoint.model_function: {reference}",
            expected="a function without arguments in a module on the Python path",
            got=f"{type(error).__name__}: {error}"[:1000],
            remedy="call it by hand",
        ) from error
    if not isinstance(model, keras.Model) or not model.built:
        raise RecipeError(
            "The model function returned something else than a Keras 2 model.",
            where=f"checkpoint.model_function: {reference}",
            expected="a built tf_keras model",
            got=f"{type(model).__module__}.{type(model).__qualname__}",
            remedy="build it with tf_keras layers (`import tf_keras as keras`)",
        )
    return model
