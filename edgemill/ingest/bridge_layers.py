"""Keras 3 layers in Keras 2: which class, which settings, where the two disagree.

A layer whose class and settings have the same names in both is taken over as it is; the functions
here are for the others. That a translation is right is not believed but proved, by `bridge.compare`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from edgemill.tf import keras

Twin = Callable[..., Any]


class CannotBridgeError(Exception):
    """Why one layer or operation has no Keras 2 counterpart."""


_SAME_ACTIVATIONS = {
    "linear", "relu", "tanh", "sigmoid", "softmax", "elu", "selu", "softplus", "softsign", "silu", "gelu",
    "exponential", "mish", "log_softmax",
}  # fmt: skip
# They only act in training; without them the answers are the same.
_AUGMENTATION = ("Random", "AugMix", "CutMix", "MixUp", "AutoContrast", "Solarization", "MaxNumBoundingBoxes")


def translate(layer: Any, name: str) -> Twin:
    """The Keras 2 counterpart of a Keras 3 layer, with its weights.

    Args:
        layer: built Keras 3 layer.
        name: name of the counterpart, unique in its model; where one layer becomes several, a prefix.

    Returns:
        A function of symbolic or real tensors, to be called as the layer was.

    Raises:
        CannotBridgeError: there is no counterpart.
    """
    kind = type(layer).__name__
    if not type(layer).__module__.startswith("keras."):
        raise CannotBridgeError("custom class")
    if kind in _SPECIAL:
        return _SPECIAL[kind](layer, name)
    if kind.startswith(_AUGMENTATION):
        return _first
    if not hasattr(keras.layers, kind):
        raise CannotBridgeError("Keras 2 has no such layer")
    return _with_activation(layer, name) if hasattr(layer, "activation") else weighted(same(layer, name), layer)


def same(layer: Any, name: str, **changes: Any) -> Any:
    """A Keras 2 layer of the same class and settings, not built, without weights."""
    kind = getattr(keras.layers, type(layer).__name__)
    accepted = _parameters(kind)
    settings = {key: _plain(value) for key, value in layer.get_config().items() if key in accepted}
    settings |= {"name": name, "dtype": "float32"} | changes
    return kind(**{key: value for key, value in settings.items() if value is not _DEFAULT})


def weighted(twin: Any, layer: Any) -> Twin:
    """A Keras 2 layer that takes over the weights of `layer` when it is first called, and so built."""
    done = False

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal done
        answer = twin(*args, **{key: value for key, value in kwargs.items() if value is not None})
        if not done:
            values = [np.asarray(weight) for weight in layer.weights]
            wanted = [tuple(weight.shape) for weight in twin.weights]
            if [value.shape for value in values] != wanted:
                raise CannotBridgeError(f"weights of shapes {[v.shape for v in values]}, Keras 2 wants {wanted}")
            twin.set_weights(values)
            done = True
        return answer

    return call


def activation(name: str, prefix: str) -> Twin:
    """A Keras 3 activation function, by its name there, as Keras 2 layers named after `prefix`.

    Raises:
        CannotBridgeError: unknown.
    """
    if name == "linear":
        return _first
    if name in ("relu6", "leaky_relu", "relu"):
        return _rectifier(name, prefix)
    if name in _SAME_ACTIVATIONS:
        return _only(keras.layers.Activation("swish" if name == "silu" else name, name=prefix))
    if name == "hard_sigmoid":
        return hard_sigmoid(prefix)
    if name == "hard_silu":
        gate = hard_sigmoid(f"{prefix}_gate")
        product = keras.layers.Multiply(name=prefix)
        return lambda x: product([x, gate(x)])
    raise CannotBridgeError(f"Keras 2 has no activation {name!r}")


def _rectifier(name: str, prefix: str) -> Twin:
    if name == "leaky_relu":  # the function's slope is 0.2, the layer's 0.3
        return _only(keras.layers.LeakyReLU(alpha=0.2, name=prefix))
    return _only(keras.layers.ReLU(max_value=6.0 if name == "relu6" else None, name=prefix))


def hard_sigmoid(prefix: str) -> Twin:
    """relu6(x + 3) / 6, as Keras 3 has it; Keras 2's function of this name is another one."""
    shift = keras.layers.Rescaling(1.0, offset=3.0, name=f"{prefix}_shift")
    clip = keras.layers.ReLU(max_value=6.0, name=f"{prefix}_clip")
    scale = keras.layers.Rescaling(1.0 / 6.0, name=f"{prefix}_scale")
    return lambda x: scale(clip(shift(x)))


def activation_name(function: Any) -> str:
    """Name of a Keras 3 activation function.

    Raises:
        CannotBridgeError: it is not one of Keras's.
    """
    module = getattr(function, "__module__", "") or ""
    name = getattr(function, "__name__", None)
    if function is None:
        return "linear"
    if name is None or not module.startswith("keras."):
        raise CannotBridgeError(f"custom activation {name or function!r}")
    return str(name)


def _with_activation(layer: Any, name: str) -> Twin:
    function = layer.activation
    if hasattr(function, "get_config"):  # a layer given as an activation
        after = translate(function, f"{name}_activation")
        before = weighted(same(layer, name, activation="linear"), layer)
        return lambda *args, **kwargs: after(before(*args, **kwargs))
    title = activation_name(function)
    if title in _SAME_ACTIVATIONS:
        return weighted(same(layer, name, activation="swish" if title == "silu" else title), layer)
    after = activation(title, f"{name}_{title}")
    before = weighted(same(layer, name, activation="linear"), layer)
    return lambda *args, **kwargs: after(before(*args, **kwargs))


def _activation(layer: Any, name: str) -> Twin:
    function = layer.activation
    if hasattr(function, "get_config"):
        return translate(function, name)
    return activation(activation_name(function), name)


def _recurrent(layer: Any, name: str) -> Any:
    names = {}
    for key in ("activation", "recurrent_activation"):
        if hasattr(layer, key):
            title = activation_name(getattr(layer, key))
            if title not in _SAME_ACTIVATIONS:
                raise CannotBridgeError(f"Keras 2 has no {key} {title!r} inside a recurrent layer")
            names[key] = "swish" if title == "silu" else title
    return same(layer, name, **names)


def _bidirectional(layer: Any, name: str) -> Twin:
    forward = _inner(layer.forward_layer, layer.forward_layer.name)
    backward = _inner(layer.backward_layer, layer.backward_layer.name)
    twin = keras.layers.Bidirectional(forward, merge_mode=layer.merge_mode, backward_layer=backward, name=name)
    return weighted(twin, layer)


def _inner(layer: Any, name: str) -> Any:
    """A Keras 2 layer to be put inside a wrapper, whose settings must all exist in Keras 2."""
    if type(layer).__name__ in _RECURRENT:
        return _recurrent(layer, name)
    if type(layer).__name__ in _SPECIAL or not hasattr(keras.layers, type(layer).__name__):
        raise CannotBridgeError(f"wraps a {type(layer).__name__}")
    if hasattr(layer, "activation"):
        title = activation_name(layer.activation)
        if title not in _SAME_ACTIVATIONS:
            raise CannotBridgeError(f"wraps a {type(layer).__name__} with activation {title!r}")
        return same(layer, name, activation="swish" if title == "silu" else title)
    return same(layer, name)


def _wrapped(layer: Any, name: str) -> Twin:
    return weighted(type_of(layer)(_inner(layer.layer, layer.layer.name), name=name), layer)


def type_of(layer: Any) -> Any:
    """The Keras 2 class with the same name."""
    return getattr(keras.layers, type(layer).__name__)


def _normalization(layer: Any, name: str) -> Twin:
    if layer.mean is None:
        layer.finalize_state()
    axis = layer.axis if isinstance(layer.axis, (list, tuple)) or layer.axis is None else (layer.axis,)
    kept = None if axis is None else list(axis)
    mean, variance = (np.asarray(value, np.float32) for value in (layer.mean, layer.variance))
    twin = keras.layers.Normalization(
        axis=kept,
        mean=mean.reshape(-1).tolist() if kept and len(kept) == 1 else _single(mean),
        variance=variance.reshape(-1).tolist() if kept and len(kept) == 1 else _single(variance),
        invert=layer.invert,
        name=name,
    )
    return _only(twin)


def _single(value: Any) -> float:
    if value.size != 1:
        raise CannotBridgeError("statistics over several axes")
    return float(value.reshape(-1)[0])


def _layer_normalization(layer: Any, name: str) -> Twin:
    if getattr(layer, "rms_scaling", False):
        raise CannotBridgeError("Keras 2 has no root-mean-square scaling")
    return weighted(same(layer, name), layer)


def _first(x: Any, *_: Any, **__: Any) -> Any:
    return x


def _only(twin: Any) -> Twin:
    """A layer called with its first argument alone."""
    return lambda x, *_, **__: twin(x)


_RECURRENT = {"LSTM", "GRU", "SimpleRNN"}
_SPECIAL: dict[str, Callable[[Any, str], Twin]] = {
    "Activation": _activation,
    "Bidirectional": _bidirectional,
    "GRU": lambda layer, name: weighted(_recurrent(layer, name), layer),
    "LSTM": lambda layer, name: weighted(_recurrent(layer, name), layer),
    "LayerNormalization": _layer_normalization,
    "LeakyReLU": lambda layer, name: _only(keras.layers.LeakyReLU(alpha=float(layer.negative_slope), name=name)),
    "Normalization": _normalization,
    "SimpleRNN": lambda layer, name: weighted(_recurrent(layer, name), layer),
    "TimeDistributed": _wrapped,
}
_DEFAULT = object()


def _parameters(kind: type) -> set[str]:
    """Settings that a Keras 2 layer class takes."""
    found = {"trainable"}
    for base in kind.__mro__:
        if "__init__" in vars(base) and base is not object:
            signature = inspect.signature(vars(base)["__init__"]).parameters
            found |= set(signature) - {"self", "args", "kwargs"}
            if not any(item.kind is inspect.Parameter.VAR_KEYWORD for item in signature.values()):
                break
    return found - {"dtype", "name"}


def _plain(value: Any) -> Any:
    """A setting in Keras 2's words; initializers and the like that it does not know become its defaults."""
    if not (isinstance(value, dict) and "class_name" in value):
        return value
    config = value.get("config") or {}
    for space in (keras.initializers, keras.regularizers, keras.constraints):
        kind = getattr(space, value["class_name"], None)
        if kind is not None:
            accepted = inspect.signature(kind.__init__).parameters
            return kind(**{key: item for key, item in config.items() if key in accepted})
    return _DEFAULT
