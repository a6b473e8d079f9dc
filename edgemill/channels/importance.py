"""How much a channel is worth, by the four measures of the recipe.

A channel is worth what all the places where it lies say together, so that channels which only go together
are judged together. L1, gamma and activations have another scale in every layer: each place is first
divided by its mean, and what a removal loses is the share of the squares that its group still has. This is
the score of LAMP (Lee et al. 2021, "Layer-adaptive sparsity for the magnitude-based pruning", section 2), the
relative distortion of what the group answers; it grows as a group gets thin, so none is emptied. Taylor
scores are changes of the loss, one unit for all groups, and are added up as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from edgemill.channels.book import Cut, Role
from edgemill.channels.groups import ChannelMap
from edgemill.channels.replay import replay
from edgemill.channels.samples import Sampler
from edgemill.channels.scores import Numbers, Scores
from edgemill.recipe import Importance
from edgemill.tf import tf


def scores(method: Importance, model: Any, channels: ChannelMap, sampler: Sampler) -> Scores:
    """Judge all atoms of the groups that can be removed.

    Args:
        method: which importance.
        model: tf_keras model that `channels` describes.
        channels: its groups.
        sampler: training samples, for Taylor and activations.
    """
    used = {group.name: method for group in channels.groups}
    if method is Importance.TAYLOR:
        return Scores(taylor(model, channels, sampler), False, used)
    if method is Importance.ACTIVATION:
        return Scores(_relative(channels, _activations(model, channels, sampler)), True, used)
    by_l1 = _relative(channels, _magnitudes(channels))
    if method is Importance.L1:
        return Scores(by_l1, True, used)
    factors = [(cut, np.abs(cut.variable.numpy())) for cut in channels.cuts if cut.role is Role.NORMALIZES]
    values = _relative(channels, factors)
    covered = np.isin(np.arange(len(values)), np.concatenate([[-1], *(cut.atoms for cut, _ in factors)]))
    for group in channels.groups:
        if not covered[group.atoms].all():
            values[group.atoms] = by_l1[group.atoms]
            used[group.name] = Importance.L1
    return Scores(values, True, used)


def taylor(model: Any, channels: ChannelMap, sampler: Sampler) -> Numbers:
    """Change of the loss without an atom, by its first order (Molchanov et al. 2019, section 3.1).

    A channel is gone when every kernel that reads it has zeros for it, whatever batch normalization,
    activations or depthwise kernels it passed before. So the change is the sum of gradient * weight over its
    slices of the kernels that read it: each effect once. Molchanov's gates behind batch normalization are the
    same where one kernel reads. Per batch this sum has a sign; its root mean square over the batches counts.
    """
    readers = [cut for cut in channels.cuts if cut.role is Role.READS]
    kernels = [cut.variable for cut in readers]

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def slices(x: Any, wanted: Any) -> list[Any]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(kernels)
            loss = sampler.loss(model(x, training=False), wanted)
        gradients = tape.gradient(loss, kernels, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [
            tf.reduce_sum(gradient * kernel, axis=[axis for axis in range(len(kernel.shape)) if axis != cut.axis])
            for cut, kernel, gradient in zip(readers, kernels, gradients, strict=True)
        ]

    total, batches = np.zeros(channels.book.atoms.count), 0
    for x, wanted in sampler.small():
        found = [item.numpy() for item in slices(tf.constant(x), tf.constant(wanted))]
        total += channels.sum_by_atom(zip(readers, found, strict=True)) ** 2
        batches += 1
    return np.sqrt(total / batches)


def _magnitudes(channels: ChannelMap) -> list[tuple[Cut, Numbers]]:
    """L1 of every slice of the kernels that write or filter."""
    found = []
    for cut in channels.cuts:
        if cut.role in (Role.WRITES, Role.FILTERS):
            values = np.abs(cut.variable.numpy().astype(np.float64))
            found.append((cut, np.moveaxis(values, cut.axis, 0).reshape(values.shape[cut.axis], -1).sum(axis=1)))
    return found


def _activations(model: Any, channels: ChannelMap, sampler: Sampler) -> list[tuple[Cut, Numbers]]:
    """Mean magnitude of every channel where a kernel reads it."""
    read = {id(cut.layer): cut for cut in reversed(channels.cuts) if cut.role in (Role.READS, Role.FILTERS)}

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def magnitudes(x: Any) -> list[Any]:
        seen: dict[int, Any] = {}

        def call(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if id(layer) in read:
                (value,) = tf.nest.flatten(args)
                mean = tf.reduce_mean(tf.abs(value), axis=list(range(len(value.shape) - 1)))
                seen[id(layer)] = seen.get(id(layer), 0.0) + mean
            return layer(*args, **kwargs)

        replay(model, [x], call)
        return [seen[key] for key in read]

    total = [np.zeros(len(cut.atoms)) for cut in read.values()]
    for x in sampler.large():
        total = [so_far + value.numpy() for so_far, value in zip(total, magnitudes(tf.constant(x)), strict=True)]
    return list(zip(read.values(), total, strict=True))


def _relative(channels: ChannelMap, found: Iterable[tuple[Cut, Numbers]]) -> Numbers:
    """Mean over the places of an atom's value there, by the mean of its group there."""
    total, places = np.zeros(channels.book.atoms.count), np.zeros(channels.book.atoms.count)
    for cut, values in found:
        here = np.zeros_like(total)
        np.add.at(here, cut.atoms, values)
        for group in channels.groups:
            if np.isin(group.atoms, cut.atoms).all():
                mean = here[group.atoms].mean()
                total[group.atoms] += here[group.atoms] / mean if mean > 0 else 0.0
                places[group.atoms] += 1
    return total / np.maximum(places, 1)
