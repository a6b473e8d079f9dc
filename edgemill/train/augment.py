"""Random changes of training images: mirrored and moved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemill.errors import RecipeError
from edgemill.recipe import Augment

_IMAGE_RANKS = (2, 3)
_COLOURS = (1, 3, 4)


@dataclass(frozen=True)
class Draws:
    """How each of N images is changed.

    Attributes:
        flips: whether it is mirrored, bool (N,); used where the rule allows it.
        moves: pixels down and to the right, int64 (N, 2); None without shift.
    """

    flips: NDArray[np.bool_]
    moves: NDArray[np.int64] | None

    def of(self, chosen: NDArray[np.int64]) -> Draws:
        """The draws of some of the images."""
        return Draws(self.flips[chosen], None if self.moves is None else self.moves[chosen])


def image_axes(sample_shape: tuple[int, ...]) -> tuple[int, int]:
    """Axes of height and width in a sample: (H, W), (H, W, C), or (C, H, W).

    Raises:
        RecipeError: samples of this shape are not images.
    """
    if len(sample_shape) not in _IMAGE_RANKS:
        raise RecipeError(
            "Only images can be augmented.",
            where="augment",
            expected="samples of shape (H, W), (H, W, C) or (C, H, W)",
            got=str(sample_shape),
            remedy="remove flip and shift",
        )
    return (1, 2) if channels_first(sample_shape) else (0, 1)


def channels_first(sample_shape: tuple[int, ...]) -> bool:
    """Whether an image is (C, H, W): only its first axis looks like colours."""
    return len(sample_shape) == max(_IMAGE_RANKS) and sample_shape[0] in _COLOURS and sample_shape[-1] not in _COLOURS


def draw(count: int, rule: Augment, rng: np.random.Generator) -> Draws:
    """Choose for `count` images how they are changed."""
    flips = rng.random(count) < 0.5
    moves = rng.integers(-rule.shift, rule.shift + 1, size=(count, 2)) if rule.shift else None
    return Draws(flips, moves)


def augment(images: NDArray[np.generic], rule: Augment, draws: Draws) -> NDArray[np.generic]:
    """Mirror and move images.

    Args:
        images: stored samples, (N, *sample_shape), not yet preprocessed, so that the zeros that
            come in at the edges are the same value as in the source.
        rule: what is allowed.
        draws: what was chosen for each image.
    """
    height, width = image_axes(images.shape[1:])
    out = np.array(images)
    if rule.flip:
        out[draws.flips] = np.flip(out[draws.flips], axis=width + 1)
    if draws.moves is not None:
        padding = [(0, 0)] * out.ndim
        padding[height + 1] = padding[width + 1] = (rule.shift, rule.shift)
        padded = np.pad(out, padding)
        rows, columns = images.shape[height + 1], images.shape[width + 1]
        for i, (dy, dx) in enumerate(draws.moves + rule.shift):
            window: list[slice] = [slice(None)] * (out.ndim - 1)
            window[height] = slice(int(dy), int(dy) + rows)
            window[width] = slice(int(dx), int(dx) + columns)
            out[i] = padded[i][tuple(window)]
    return out
