"""Losses on feature maps: attention transfer and FitNets hints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgemill.errors import RecipeError
from edgemill.recipe import DistillMethod
from edgemill.tf import keras, tf
from edgemill.train.teacher import TeacherMap

_TINY = 1e-6


@dataclass(frozen=True)
class Pair:
    """A student layer and the teacher tensor whose map its output imitates."""

    layer: str
    teacher: TeacherMap


@dataclass(frozen=True)
class FeatureLoss:
    """Loss between maps of student and teacher.

    Attributes:
        method: attention or fitnets.
        weight: factor on the loss.
        pairs: what imitates what.
    """

    method: DistillMethod
    weight: float
    pairs: tuple[Pair, ...]

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the teacher's tensors, in the order of `pairs`."""
        return tuple(pair.teacher.tensor for pair in self.pairs)

    def record(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return {
            "method": str(self.method),
            "weight": self.weight,
            "pairs": [[pair.layer, pair.teacher.tensor, list(pair.teacher.spatial)] for pair in self.pairs],
        }

    def regressors(self) -> list[Any]:
        """Learnt maps from student to teacher channels, one a pair; none for attention."""
        if self.method is DistillMethod.ATTENTION:
            return []
        return [keras.layers.Dense(pair.teacher.channels, name=f"hint_{i}") for i, pair in enumerate(self.pairs)]

    def loss(self, student: list[Any], teacher: list[Any], regressors: list[Any]) -> Any:
        """Weighted loss of a batch.

        Args:
            student: maps of the student, (N, *spatial, C_s), in the order of `pairs`.
            teacher: maps of the teacher, (N, *spatial, C_t).
            regressors: what `regressors` returned; a Dense layer on the last axis is a 1x1 convolution.
        """
        if self.method is DistillMethod.ATTENTION:
            terms = [
                tf.reduce_mean(tf.square(attention_map(s) - attention_map(t)))
                for s, t in zip(student, teacher, strict=True)
            ]
        else:
            terms = [hint_loss(r(s), t) for s, t, r in zip(student, teacher, regressors, strict=True)]
        return self.weight * tf.add_n(terms)


def attention_map(features: Any) -> Any:
    """Spatial attention, (N, positions), of unit length: the sum over channels of squared activations.

    Zagoruyko and Komodakis 2017, section 3.1, F_sum^2; the loss is the mean squared difference of
    these vectors, as in the authors' published code.
    """
    energy = tf.reduce_mean(tf.square(features), axis=-1)
    return tf.math.l2_normalize(tf.reshape(energy, [tf.shape(energy)[0], -1]), axis=1)


def hint_loss(student: Any, teacher: Any) -> Any:
    """Half the squared distance of the maps (Romero et al. 2015, equation 3), a position.

    It is divided by the teacher's own squared size, so that the weight does not depend on the scale
    of its activations, and by the number of positions, so that one weight suits this and attention.
    """
    positions = tf.cast(tf.reduce_prod(tf.shape(teacher)[1:-1]), tf.float32)
    distance = tf.reduce_sum(tf.square(student - teacher)) / (tf.reduce_sum(tf.square(teacher)) + _TINY)
    return 0.5 * distance / positions


def match(method: DistillMethod, student: Any, teacher: tuple[TeacherMap, ...]) -> tuple[Pair, ...]:
    """Choose which maps to compare: at every spatial size that both have, the last map of each.

    Attention takes all these sizes, FitNets the middle one (Romero et al. 2015, section 2.2).
    Only FitNets can compare maps without spatial axes.

    Args:
        method: attention or fitnets.
        student: functional tf_keras model, channels last.
        teacher: its maps in graph order.

    Raises:
        RecipeError: no size is common to both.
    """
    mine: dict[tuple[int, ...], str] = {}
    output_layer = getattr(getattr(student.output, "_keras_history", None), "layer", None)
    for layer in student.layers:
        if layer is output_layer or isinstance(layer, keras.layers.InputLayer) or len(layer.inbound_nodes) != 1:
            continue
        shape = layer.output_shape
        if isinstance(shape, tuple) and len(shape) > 1 and None not in shape[1:]:
            mine[tuple(shape[1:-1])] = layer.name
    theirs = {item.spatial: item for item in teacher}
    least = 2 if method is DistillMethod.ATTENTION else 1
    common = [
        size
        for size in theirs
        if size in mine and (_positions(size) >= least or (size == () and method is DistillMethod.FITNETS))
    ]
    if not common:
        raise RecipeError(
            f"Student and teacher have no feature maps of equal size, which {method} needs.",
            where="stages.distill.method",
            expected="a common spatial size",
            got=f"student {sorted(mine)}, teacher {sorted(theirs)}",
            remedy="use method: response, or a student that keeps the teacher's resolutions",
        )
    if method is DistillMethod.FITNETS:
        spatial = [size for size in common if _positions(size) > 1] or common
        common = [spatial[len(spatial) // 2]]
    return tuple(Pair(mine[size], theirs[size]) for size in common)


def _positions(size: tuple[int, ...]) -> int:
    product = 1
    for extent in size:
        product *= extent
    return product if size else 0
