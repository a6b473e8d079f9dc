"""Write a Keras 2 checkpoint in every format that users have: `write_formats.py CHECKPOINT FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from edgemill.ingest.export import keras_to_onnx
from edgemill.tf import keras as keras2
from edgemill.tf import tf

_KEPT = {
    "name", "filters", "units", "kernel_size", "strides", "padding", "use_bias", "activation", "epsilon", "momentum",
    "pool_size", "rate", "max_value",
}  # fmt: skip


def as_keras3(model: Any) -> Any:
    """The same functional model with the same weights in Keras 3."""
    import keras

    first, *others = model.layers
    tensors = {first.name: keras.Input(model.input_shape[1:])}
    for layer in others:
        settings = {key: value for key, value in layer.get_config().items() if key in _KEPT}
        twin = getattr(keras.layers, type(layer).__name__)(**settings)
        inputs = [tensors[item._keras_history.layer.name] for item in layer._inbound_nodes[0].keras_inputs]
        tensors[layer.name] = twin(inputs[0] if len(inputs) == 1 else inputs)
        twin.set_weights(layer.get_weights())
    return keras.Model(tensors[first.name], tensors[others[-1].name])


def main(checkpoint: str, folder: str) -> None:
    out = Path(folder)
    model = keras2.models.load_model(checkpoint, compile=False)
    model.save(out / "keras2.h5")
    model.save(out / "keras2.keras")
    as_keras3(model).save(out / "keras3.keras")
    tf.saved_model.save(model, str(out / "saved_model"))
    keras_to_onnx(model, out / "model.onnx")


if __name__ == "__main__":
    main(*sys.argv[1:])
