"""Repair without training: what is left of a layer learns to answer as the whole layer did.

After channels are gone, every kernel that read some of them is solved anew in closed form: with x' the patches
it now sees and y the answers of the same layer in the whole graph, W' and b' minimize |y - W' x' - b'|^2 over
samples, with a ridge towards the weights it had (He, Zhang and Sun 2017, "Channel pruning for accelerating very
deep neural networks", section 3.1, their asymmetric form: errors of earlier layers are part of x'). With weights
that stay, only b' is solved: the mean answer of the channels that went moves into the bias.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgemill.channels.onnx_kernels import Kernel, matrix_of, patches, positions, write_back
from edgemill.channels.onnx_prepare import Prepared
from edgemill.channels.onnx_samples import Inside, Samples

Matrix = NDArray[np.float64]
Report = Callable[[float | None, str], None]

_ROWS = 40_000
_LARGEST = 6000
"""Inputs times taps of a kernel that is solved; larger ones get a new bias only."""
_RIDGE = 3e-3
"""Of the mean variance of a patch's entries."""


@dataclass(frozen=True)
class Damaged:
    """A kernel that reads fewer channels than it did.

    Attributes:
        kernel: in the whole graph and, but for nodes that were added, in the pruned one.
        left: outputs that the pruned one still has.
    """

    kernel: Kernel
    left: NDArray[np.int64]


def repair(
    whole: onnx.ModelProto,
    pruned: onnx.ModelProto,
    damaged: list[Damaged],
    samples: Samples,
    solve: bool,
    report: Report,
) -> tuple[onnx.ModelProto, dict[str, dict[str, float]]]:
    """Repair kernels one after the other, in the order of the graph.

    Args:
        whole: the graph as it was, nodes as in `pruned`.
        pruned: not changed.
        damaged: kernels, in the order of the graph.
        samples: on which answers are compared.
        solve: for the weights too; otherwise for the bias only.
        report: progress.

    Returns:
        the repaired graph, and for every kernel the share of the variance of its answers in the whole graph
        that it got wrong: `before` with the weights that were left, `after`.
    """
    prepared = Prepared(pruned)
    errors = {}
    added = 0
    for index, item in enumerate(damaged):
        report(index / len(damaged), f"repairing {item.kernel.name}")
        kernel = replace(item.kernel, index=item.kernel.index + added)
        moments = _moments(whole, prepared, item, kernel, samples)
        old = matrix_of(prepared, kernel)
        new = moments.solved(old) if solve and old.shape[1] <= _LARGEST else old
        before = len(prepared.graph.node)
        shift = moments.shift(old, new)
        errors[kernel.name] = {"before": moments.error(old, None), "after": moments.error(new, shift)}
        write_back(prepared, kernel, new, shift)
        added += len(prepared.graph.node) - before
    prepared.forget_unused()
    return prepared.model, errors


class _Moments:
    """First and second moments of patches x, wanted answers y, and present answers z."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self._count = 0
        self._x, self._y, self._z = np.zeros(inputs), np.zeros(outputs), np.zeros(outputs)
        self._xx, self._xy = np.zeros((inputs, inputs)), np.zeros((inputs, outputs))
        self._yy = 0.0

    def add(self, x: NDArray[Any], y: NDArray[Any], z: NDArray[Any]) -> None:
        """Add rows."""
        x, y = x.astype(np.float64), y.astype(np.float64)
        self._count += len(x)
        self._x += x.sum(axis=0)
        self._y += y.sum(axis=0)
        self._z += z.sum(axis=0, dtype=np.float64)
        self._xx += x.T @ x
        self._xy += x.T @ y
        self._yy += float((y**2).sum())

    def solved(self, old: Matrix) -> Matrix:
        """Weights that answer best, (outputs, inputs)."""
        covariance = self._covariance()
        ridge = _RIDGE * float(np.trace(covariance)) / len(covariance) + np.finfo(np.float64).tiny
        wanted = self._crossed() + ridge * old.T
        made: Matrix = np.linalg.solve(covariance + ridge * np.eye(len(covariance)), wanted).T.astype(np.float64)
        return made if np.isfinite(made).all() else old

    def shift(self, old: Matrix, new: Matrix) -> NDArray[np.float64]:
        """What the bias gets besides, so that the mean answers are the wanted ones."""
        present = self._z / self._count - old @ (self._x / self._count)
        made: NDArray[np.float64] = self._y / self._count - new @ (self._x / self._count) - present
        return made

    def error(self, matrix: Matrix, shift: NDArray[np.float64] | None) -> float:
        """Share of the variance of the wanted answers that weights get wrong; without a shift, with the old bias."""
        variance = self._yy / self._count - float(((self._y / self._count) ** 2).sum())
        residual = variance - 2 * float((matrix * self._crossed().T).sum())
        residual += float(((matrix @ self._covariance()) * matrix).sum())
        if shift is None:
            residual += float((((self._y - self._z) / self._count) ** 2).sum())
        return max(0.0, residual / variance) if variance > 0 else 0.0

    def _covariance(self) -> Matrix:
        mean = self._x / self._count
        made: Matrix = self._xx / self._count - np.outer(mean, mean)
        return made

    def _crossed(self) -> Matrix:
        made: Matrix = self._xy / self._count - np.outer(self._x / self._count, self._y / self._count)
        return made


def _moments(whole: onnx.ModelProto, prepared: Prepared, item: Damaged, kernel: Kernel, samples: Samples) -> _Moments:
    node = prepared.graph.node[kernel.index]
    entry, answer = node.input[0], node.output[0]
    wanted = Inside(whole, [whole.graph.node[item.kernel.index].output[0]])
    present = Inside(prepared.model, [entry, answer])
    shape = prepared.shapes[answer] or ()
    random = np.random.default_rng(0)
    most = max(1, _ROWS // samples.count)
    moments: _Moments | None = None
    for x in samples.batches():
        now = present(x)
        rows = patches(node, kernel, now[entry], shape)
        y = positions(node, wanted(x)[answer])[..., item.left]
        z = positions(node, now[answer])
        if rows.shape[1] > most:
            chosen = np.sort(random.choice(rows.shape[1], most, replace=False))
            rows, y, z = rows[:, chosen], y[:, chosen], z[:, chosen]
        if moments is None:
            moments = _Moments(rows.shape[2], y.shape[2])
        moments.add(rows.reshape(-1, rows.shape[2]), y.reshape(-1, y.shape[2]), z.reshape(-1, z.shape[2]))
    assert moments is not None
    return moments
