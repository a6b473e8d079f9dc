"""Learning to round: the optimization problem of AdaRound for one layer, with analytic gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemill.quantize.repair.linear import Floats

# Rectified sigmoid (equation 23, after Louizos et al. 2018).
_ZETA, _GAMMA = 1.1, -0.1
_WARM_UP = 0.2
_BETA = (20.0, 2.0)
_REGULARIZER = 10.0
_RATE = 0.03
_BATCH = 256
_ADAM = (0.9, 0.999, 1e-8)
_EXACT = 1e-10


@dataclass(frozen=True)
class Problem:
    """What a layer reads, what it should answer, and its weights.

    Shapes are those of `Linear.matrix`: g groups, o outputs and k factors in each, r positions.

    Attributes:
        factors: what the layer reads in the quantized graph, float32 (g, r, k).
        targets: what it answers in the float graph, (g, r, o).
        weight: float weights, (g, o, k).
        scale: step of the weights, (g, o).
        bias: (g, o), in the unit of the answers.
        limits: smallest and largest integer allowed.
        clamp: smallest and largest answer that the next layer can see.
        held_out: positions that are not learnt from, bool (r,).
    """

    factors: NDArray[np.float32]
    targets: NDArray[np.float32]
    weight: Floats
    scale: Floats
    bias: Floats
    limits: tuple[int, int]
    clamp: tuple[float, float]
    held_out: NDArray[np.bool_]

    def errors(self, integers: NDArray[np.integer], held_out: bool) -> Floats:
        """Mean squared error of every output, (g, o), on the positions held out or on the others."""
        chosen = self.held_out if held_out else ~self.held_out
        weight = (integers * self.scale[:, :, None]).astype(np.float32)
        made = self.factors[:, chosen] @ weight.transpose(0, 2, 1) + self.bias[:, None].astype(np.float32)
        missed = np.clip(made, *self.clamp) - np.clip(self.targets[:, chosen], *self.clamp)
        errors: Floats = (missed.astype(np.float64) ** 2).mean(axis=1)
        return errors


@dataclass(frozen=True)
class Rounding:
    """Weights as integers, each the floor or the ceiling of w / s (or a limit), int32 (g, o, k)."""

    integers: NDArray[np.int32]


def learn(problem: Problem, iterations: int, draw: np.random.Generator) -> Rounding:
    """Minimise squared error + regularizer over soft roundings h(V) in 0..1, then decide at 1/2 (equation 21 to 25).

    h is the rectified sigmoid; the regularizer sum(1 - |2 h - 1|^beta) is off for the first 20 % and
    then pushes h to 0 or 1 with beta going from 20 to 2 on a cosine. Optimizer Adam, 256 positions an update.
    So that nothing depends on the unit of the answers or the size of the layer, the squared error of an output is
    divided by the one that rounding to nearest has, and the regularizer by the number of factors; the paper leaves
    both to the choice of lambda. A weight that is on the grid already, as a pruned one, stays where it is.

    Args:
        problem: of one layer.
        iterations: number of updates.
        draw: chooses the positions of an update.
    """
    exact, (low, high) = problem.weight / problem.scale[:, :, None], problem.clamp
    floor = np.floor(exact)
    free = (exact > floor) & (exact > problem.limits[0]) & (exact < problem.limits[1])
    learnt = np.flatnonzero(~problem.held_out)
    nearest = np.clip(np.rint(exact), *problem.limits).astype(np.int32)
    if not free.any() or not learnt.size:
        return Rounding(nearest)
    targets = np.clip(problem.targets, low, high)
    norm = problem.errors(nearest, held_out=False)
    # An output that never leaves its limits, or is exact, has nothing to learn.
    norm = np.where(norm > _EXACT * (targets.astype(np.float64) ** 2).mean(axis=1), norm, np.inf).astype(np.float32)
    fraction = (exact - floor).astype(np.float32)
    v = -np.log(np.maximum((_ZETA - _GAMMA) / (fraction - _GAMMA) - 1, 1e-6))
    base, step = floor.astype(np.float32), problem.scale[:, :, None].astype(np.float32)
    bias = problem.bias[:, None].astype(np.float32)
    mask = free.astype(np.float32)
    first, second = np.zeros_like(v), np.zeros_like(v)
    strength = _REGULARIZER / v.shape[2]
    for index in range(iterations):
        at = draw.choice(learnt, min(_BATCH, learnt.size), replace=False)
        factors = problem.factors[:, at]
        sigmoid = 1 / (1 + np.exp(-v))
        stretched = sigmoid * (_ZETA - _GAMMA) + _GAMMA
        h = np.clip(stretched, 0, 1)
        made = factors @ ((base + h) * step).transpose(0, 2, 1) + bias
        missed = np.clip(made, low, high) - targets[:, at]
        missed *= ((made > low) & (made < high)) * (2 / len(at) / norm[:, None])
        gradient = missed.transpose(0, 2, 1) @ factors
        gradient *= step
        progress = (index / iterations - _WARM_UP) / (1 - _WARM_UP)
        if progress >= 0:
            beta = _BETA[1] + (_BETA[0] - _BETA[1]) * 0.5 * (1 + math.cos(math.pi * progress))
            far = 2 * h - 1
            gradient -= strength * beta * 2 * np.sign(far) * np.abs(far) ** (beta - 1)
        gradient *= mask * ((stretched > 0) & (stretched < 1)) * (_ZETA - _GAMMA) * sigmoid * (1 - sigmoid)
        first += (1 - _ADAM[0]) * (gradient - first)
        second += (1 - _ADAM[1]) * (gradient**2 - second)
        rate = _RATE * math.sqrt(1 - _ADAM[1] ** (index + 1)) / (1 - _ADAM[0] ** (index + 1))
        v -= rate * first / (np.sqrt(second) + _ADAM[2])
    up = v >= 0
    chosen = np.where(free, floor + up, nearest)
    return Rounding(np.clip(chosen, *problem.limits).astype(np.int32))
