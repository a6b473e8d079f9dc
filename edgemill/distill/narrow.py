"""The teacher's own graph with fewer channels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from edgemill.errors import CheckpointError
from edgemill.tf import keras, tf

_MULTIPLE = 4
# A fresh student sees few steps; with Keras' default of 0.99 its moving averages would lag behind.
_MOMENTUM = 0.9
_CONVOLUTIONS = ("Conv1D", "Conv2D", "DepthwiseConv2D")
_WIDTH_KEY = {
    "Conv1D": "filters",
    "Conv1DTranspose": "filters",
    "Conv2D": "filters",
    "Conv2DTranspose": "filters",
    "Conv3D": "filters",
    "Dense": "units",
    "Embedding": "output_dim",
    "GRU": "units",
    "LSTM": "units",
    "MultiHeadAttention": "key_dim",
    "SeparableConv1D": "filters",
    "SeparableConv2D": "filters",
    "SimpleRNN": "units",
}
_WRAPPERS = (keras.layers.Bidirectional, keras.layers.TimeDistributed)
# Their output width is that of their input, whatever weights they hold.
_FOLLOWING = (
    keras.layers.BatchNormalization,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.PReLU,
    keras.layers.UnitNormalization,
)
_MERGES = (
    keras.layers.Add,
    keras.layers.Average,
    keras.layers.Maximum,
    keras.layers.Minimum,
    keras.layers.Multiply,
    keras.layers.Subtract,
)
_BATCH = 3


def narrowed(channels: int, width: float) -> int:
    """Channel count of the student: a multiple of 4, at least 4, never more than the teacher's."""
    return min(channels, max(_MULTIPLE, round(channels * width / _MULTIPLE) * _MULTIPLE))


def narrow(teacher: Any, width: float) -> Any:
    """Clone a model with its hidden layers scaled by a factor, freshly initialised.

    The layers that set the size of the output keep theirs, and so does everything that is added to
    or multiplied with them or with the input. Depthwise layers follow their input, reshapes and
    group counts are adapted. Preprocessing layers keep their values. A teacher without any batch
    normalization gets a student with one after each linear convolution.

    Args:
        teacher: functional or sequential tf_keras model, possibly with nested models.
        width: factor on filters and units, in (0, 1].

    Raises:
        CheckpointError: the graph cannot be narrowed; the layer is named.
    """
    shapes = [tensor.shape for tensor in teacher.inputs or ()]
    student = _Narrowing(width, teacher).graph(teacher, shapes, keep_output=True)
    if width < 1 and student.count_params() >= teacher.count_params():
        raise CheckpointError(
            "The model has no hidden layer that can be narrowed.",
            where=teacher.name,
            got=f"{teacher.count_params()} parameters before and after",
            remedy="use a built-in family as the student",
        )
    sample = tf.zeros([_BATCH, *(extent or 1 for extent in teacher.inputs[0].shape[1:])], teacher.inputs[0].dtype)
    try:
        shape = tuple(student(sample, training=False).shape)
    except Exception as error:
        raise _refusal(teacher, str(error).splitlines()[0]) from error
    if shape != (_BATCH, *teacher.output_shape[1:]):
        raise CheckpointError(
            "The narrowed graph answers with another shape.",
            where=teacher.name,
            expected=str(teacher.output_shape),
            got=str(shape),
            remedy="the graph reshapes by fixed sizes; use a built-in family or a function as the student",
        )
    return student


class _Narrowing:
    def __init__(self, width: float, teacher: Any) -> None:
        self.width = width
        self.made: dict[int, Any] = {}
        # A teacher from an exported graph has its normalization folded away; a fresh student trains badly without.
        self.normalize = not any(isinstance(part, keras.layers.BatchNormalization) for part in teacher.submodules)
        self.norms: dict[int, Any] = {}

    def graph(self, model: Any, shapes: list[Any], keep_output: bool) -> Any:
        """A model like `model` for inputs of the given shapes (batch first)."""
        if not getattr(model, "_is_graph_network", False):
            raise _refusal(model, "it is not a functional or sequential model, so its graph is not known")
        kept = _kept(model, keep_output)
        inputs = [
            keras.Input(shape=shape[1:], dtype=old.dtype, name=old.name.split(":")[0])
            for shape, old in zip(shapes, model.inputs, strict=True)
        ]
        uses = model._tensor_usage_count
        tensors = {str(id(old)): [new] * uses[str(id(old))] for old, new in zip(model.inputs, inputs, strict=True)}
        for node in _nodes(model):
            if any(key not in tensors for key in node.flat_input_ids):
                continue
            args, kwargs = node.map_arguments(tensors)
            outputs = self._apply(node.layer, args, kwargs, id(node.layer) in kept)
            for key, value in zip(node.flat_output_ids, tf.nest.flatten(outputs), strict=True):
                tensors[key] = [value] * uses[key]
        outputs = [tensors[str(id(tensor))].pop() for tensor in model.outputs]
        return keras.Model(inputs, tf.nest.pack_sequence_as(model._nested_outputs, outputs), name=model.name)

    def _apply(self, layer: Any, args: Any, kwargs: Any, keep: bool) -> Any:
        given = [item for item in tf.nest.flatten((args, kwargs)) if hasattr(item, "_keras_history")]
        try:
            new = self.made.get(id(layer))
            if new is None:
                new = self._layer(layer, given, keep)
                self.made[id(layer)] = new
            outputs = new(*args, **kwargs)
            if isinstance(layer, keras.layers.experimental.preprocessing.PreprocessingLayer):
                new.set_weights(layer.get_weights())
        except CheckpointError:
            raise
        except Exception as error:  # Keras raises anything when shapes do not fit
            raise _refusal(layer, str(error).splitlines()[0]) from error
        return self._normalized(layer, outputs) if self.normalize and not keep else outputs

    def _normalized(self, layer: Any, outputs: Any) -> Any:
        if type(layer).__name__ not in _CONVOLUTIONS or layer.activation is not keras.activations.linear:
            return outputs
        norm = self.norms.get(id(layer))
        if norm is None:
            norm = keras.layers.BatchNormalization(momentum=_MOMENTUM, name=f"{layer.name}_norm")
            self.norms[id(layer)] = norm
        return norm(outputs)

    def _layer(self, layer: Any, given: list[Any], keep: bool) -> Any:
        if isinstance(layer, keras.Model):
            return self.graph(layer, [tensor.shape for tensor in given], keep)
        config = layer.get_config()
        target = config
        if isinstance(layer, _WRAPPERS):
            target = config["layer"]["config"]
        key = _width_key(layer)
        if key is not None and not keep:
            target[key] = narrowed(target[key], self.width)
            if target.get("value_dim"):
                target["value_dim"] = narrowed(target["value_dim"], self.width)
        if isinstance(layer, keras.layers.BatchNormalization):
            config["momentum"] = min(config["momentum"], _MOMENTUM)
        if isinstance(layer, keras.layers.Reshape):
            config["target_shape"] = _reshaped(layer, given[0].shape)
        if target.get("groups", 1) > 1:
            target["groups"] = _groups(layer, target, given[0].shape)
        if not isinstance(layer, keras.layers.experimental.preprocessing.PreprocessingLayer):
            config["trainable"] = True
        return type(layer).from_config(config)


def _nodes(model: Any) -> Iterator[Any]:
    for depth in sorted(model._nodes_by_depth, reverse=True):
        yield from (node for node in model._nodes_by_depth[depth] if not node.is_input)


def _width_key(layer: Any) -> str | None:
    inner = layer.layer if isinstance(layer, _WRAPPERS) else layer
    return _WIDTH_KEY.get(type(inner).__name__)


def _kept(model: Any, keep_output: bool) -> set[int]:
    """Ids of the layers whose width must stay, because it reaches the output or meets the input."""
    producer = {key: node for node in _nodes(model) for key in node.flat_output_ids}
    memory: dict[str, frozenset[int]] = {}
    fixed: set[int] = set()

    def sources(key: str) -> frozenset[int]:
        """Layers that set the width of a tensor."""
        if key in memory:
            return memory[key]
        node = producer.get(key)
        if node is None:
            found = frozenset({0})
        elif _width_key(node.layer) is not None or isinstance(node.layer, keras.Model):
            found = frozenset({id(node.layer)})
        elif node.layer.weights and not isinstance(node.layer, _FOLLOWING):
            fixed.add(id(node.layer))
            found = frozenset({id(node.layer)})
        else:
            found = frozenset().union(*(sources(item) for item in node.flat_input_ids))
        memory[key] = found
        return found

    kept: set[int] = {0}
    if keep_output:
        for tensor in model.outputs:
            kept |= sources(str(id(tensor)))
    ties = [
        frozenset().union(*(sources(key) for key in node.flat_input_ids))
        for node in _nodes(model)
        if isinstance(node.layer, _MERGES)
    ]
    kept |= fixed
    while any(tie & kept and not tie <= kept for tie in ties):
        for tie in ties:
            if tie & kept:
                kept |= tie
    return kept


def _reshaped(layer: Any, shape: Any) -> tuple[int, ...]:
    """Target shape of a Reshape whose input has changed its width."""
    target, before, after = list(layer.target_shape), layer.input_shape[-1], shape[-1]
    if before == after:
        return tuple(target)
    for i in reversed(range(len(target))):
        if target[i] == before:
            target[i] = after
            return tuple(target)
    if target == [-1]:
        return (-1,)
    others = math.prod(target[:-1])
    if others > 0 and others * target[-1] == before and after % others == 0:
        return (*target[:-1], after // others)
    if target[-1] > 0 and target[-1] % before == 0:
        return (*target[:-1], target[-1] // before * after)
    raise _refusal(layer, f"its target shape {layer.target_shape} does not follow from {before} channels")


def _groups(layer: Any, config: dict[str, Any], shape: Any) -> int:
    """Group count that fits the new channel counts: the largest divisor of the old one, or one a channel."""
    channels = shape[-1]
    limit = math.gcd(channels, config.get("filters", channels))
    if config["groups"] == layer.input_shape[-1]:
        if limit != channels:
            raise _refusal(layer, f"{config['filters']} filters are no multiple of its {channels} input channels")
        return int(channels)
    return max(divisor for divisor in range(1, config["groups"] + 1) if limit % divisor == 0)


def _refusal(layer: Any, why: str) -> CheckpointError:
    return CheckpointError(
        "The model cannot be narrowed.",
        where=f"layer {layer.name} ({type(layer).__name__})",
        got=why,
        remedy="use a built-in family or python:module:function as the student",
    )
