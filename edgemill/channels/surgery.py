"""Build a model again without some of its channels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.channels.groups import ChannelMap
from edgemill.channels.replay import is_graph, replay
from edgemill.channels.trace import is_followed
from edgemill.errors import CheckpointError, InvariantError
from edgemill.tf import keras, tf

_WIDTH = {
    "Conv1D": "filters",
    "Conv1DTranspose": "filters",
    "Conv2D": "filters",
    "Conv2DTranspose": "filters",
    "Dense": "units",
    "Embedding": "output_dim",
    "SeparableConv1D": "filters",
    "SeparableConv2D": "filters",
}


def remove(model: Any, channels: ChannelMap, gone: NDArray[np.bool_]) -> Any:
    """A model like `model`, with its weights, without some atoms.

    Where the removed channels are exactly zero wherever they are read, the answers stay the same.

    Args:
        model: the model that `channels` describes; layers that are not followed are shared with the result.
        channels: from `find_groups`.
        gone: bool (all channels,), true at the numbers of the atoms to remove.

    Returns:
        functional tf_keras model with the same names of layers, inputs and outputs.

    Raises:
        CheckpointError: Keras does not build a layer again.
        InvariantError: something does not fit afterwards.
    """
    return _Surgery(channels, gone).run(model)


class _Surgery:
    def __init__(self, channels: ChannelMap, gone: NDArray[np.bool_]) -> None:
        self._book = channels.book
        self._gone = gone
        self._cuts: dict[int, list[Any]] = {}
        for cut in channels.cuts:
            self._cuts.setdefault(id(cut.layer), []).append(cut)
        self._made: dict[int, Any] = {}
        self._pairs: list[tuple[Any, Any]] = []

    def run(self, model: Any) -> Any:
        inputs = [
            keras.Input(batch_shape=tuple(tensor.shape), dtype=tensor.dtype, name=name)
            for name, tensor in zip(model.input_names, model.inputs, strict=True)
        ]
        new = self._model(model, inputs)
        for old, copy in self._pairs:
            copy.set_weights(self._weights(old))
        if new.output_shape != model.output_shape:
            raise InvariantError(
                "A model without some channels answers with another shape.",
                where=model.name,
                expected=str(model.output_shape),
                got=str(new.output_shape),
            )
        return new

    def _model(self, model: Any, inputs: list[Any]) -> Any:
        outputs = replay(model, inputs, self._call, descend=False)
        return keras.Model(inputs, tf.nest.pack_sequence_as(model._nested_outputs, outputs), name=model.name)

    def _call(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            if id(layer) not in self._made:
                self._made[id(layer)] = self._new(layer, args)
            return self._made[id(layer)](*args, **kwargs)
        except (CheckpointError, InvariantError):
            raise
        except Exception as error:  # Keras raises anything when shapes do not fit
            raise CheckpointError(
                "The model cannot be built again without some channels.",
                where=f"layer {layer.name} ({type(layer).__name__})",
                got=f"{type(error).__name__}: {error}".splitlines()[0],
                remedy="leave out stages.channels, and use stages.distill with a width instead",
            ) from error

    def _new(self, layer: Any, args: tuple[Any, ...]) -> Any:
        if is_graph(layer):
            inputs = [
                keras.Input(batch_shape=tuple(given.shape), dtype=given.dtype, name=name)
                for name, given in zip(layer.input_names, tf.nest.flatten(args), strict=True)
            ]
            return self._model(layer, inputs)
        if not is_followed(layer) or id(layer) in self._book.left:
            return layer
        copy = type(layer).from_config(self._config(layer))
        self._pairs.append((layer, copy))
        return copy

    def _config(self, layer: Any) -> dict[str, Any]:
        config: dict[str, Any] = layer.get_config()
        if id(layer) not in self._book.outputs:
            return config
        atoms = self._book.atoms.find(self._book.outputs[id(layer)])
        before, after = len(atoms), int((~self._gone[atoms]).sum())
        key = _WIDTH.get(type(layer).__name__)
        if key is not None:
            config[key] = after
        if config.get("groups", 1) > 1:
            config["groups"] = config["groups"] * after // before
        if type(layer).__name__ == "Reshape":
            target = list(config["target_shape"])
            place = self._book.axes[id(layer)] - 1
            if target[place] != -1:
                target[place] = after
            config["target_shape"] = tuple(target)
        return config

    def _weights(self, layer: Any) -> list[NDArray[Any]]:
        axes: dict[int, list[Any]] = {}
        for cut in self._cuts.get(id(layer), []):
            axes.setdefault(id(cut.variable), []).append(cut)
        values = []
        for variable in layer.weights:
            value = variable.numpy()
            for cut in axes.get(id(variable), []):
                value = np.compress(~self._gone[cut.atoms], value, axis=cut.axis)
            values.append(value)
        return values
