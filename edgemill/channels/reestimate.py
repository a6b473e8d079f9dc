"""Statistics of batch normalization, measured again after channels have gone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.channels.replay import replay
from edgemill.tf import keras, tf


def reestimate(model: Any, batches: Iterable[NDArray[np.float32]]) -> int:
    """Set mean and variance of every batch normalization to those of some samples, in place.

    What reaches a layer has other statistics once channels before it are gone; with the old ones accuracy
    falls far more than the channels are worth (Li et al. 2020, "EagleEye", section 3.3). Layers are measured
    as in training, each behind others that normalize by the batch, but without dropout; variances of the
    batches and of their means add up.

    Args:
        model: functional or sequential tf_keras model.
        batches: float32 (N, *sample_shape).

    Returns:
        number of layers that were measured.
    """
    layers: dict[int, Any] = {}

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def moments(x: Any) -> list[list[tuple[Any, Any]]]:
        found: dict[int, list[tuple[Any, Any]]] = {}

        def call(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if not isinstance(layer, keras.layers.BatchNormalization):
                return layer(*args, **kwargs)
            layers[id(layer)] = layer
            (value,) = tf.nest.flatten(args)
            kept = [axis % len(value.shape) for axis in layer.axis]
            mean, variance = tf.nn.moments(value, [a for a in range(len(value.shape)) if a not in kept], keepdims=True)
            found.setdefault(id(layer), []).append((tf.reshape(mean, [-1]), tf.reshape(variance, [-1])))
            shape = mean.shape
            offset, scale = (None if item is None else tf.reshape(item, shape) for item in (layer.beta, layer.gamma))
            return tf.nn.batch_normalization(value, mean, variance, offset, scale, layer.epsilon)

        replay(model, [x], call)
        return list(found.values())

    collected: list[list[tuple[NDArray[Any], NDArray[Any]]]] = []
    for x in batches:
        for index, calls in enumerate(moments(tf.constant(x))):
            if index == len(collected):
                collected.append([])
            collected[index] += [(mean.numpy(), variance.numpy()) for mean, variance in calls]
    for layer, parts in zip(layers.values(), collected, strict=True):
        means, variances = (np.stack(items) for items in zip(*parts, strict=True))
        layer.moving_mean.assign(means.mean(axis=0).reshape(layer.moving_mean.shape))
        layer.moving_variance.assign((variances.mean(axis=0) + means.var(axis=0)).reshape(layer.moving_variance.shape))
    return len(layers)
