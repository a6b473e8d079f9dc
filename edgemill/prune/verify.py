"""Proof that the zeros of pruned layers are in the exported ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgemill.errors import InvariantError, QualityGateError
from edgemill.prune.select import GROUP
from edgemill.recipe import PruneMethod


@dataclass(frozen=True)
class LayerSparsity:
    """Zeros of a pruned layer in the ONNX graph.

    Attributes:
        layer: name of the Keras layer.
        tensor: name of the ONNX weight that holds its kernel.
        weights: elements of the kernel.
        zeros: exact zeros among them.
        sparsity: zeros / weights.
    """

    layer: str
    tensor: str
    weights: int
    zeros: int
    sparsity: float


def verify(
    kernels: Sequence[tuple[str, NDArray[np.float32]]], onnx_path: Path, method: PruneMethod, sparsity: float
) -> tuple[LayerSparsity, ...]:
    """Find every pruned kernel in the graph and count its zeros there.

    A kernel is recognised by its shape, in any order of its axes, and by its zeros: the export may
    scale output channels (folded batch normalization) but must keep each zero.

    Args:
        kernels: with the names of their layers, in Keras layout: (..., inputs, outputs).
        onnx_path: the exported graph.
        method: which rule the zeros follow.
        sparsity: share of zeros asked for (magnitude only; 2:4 is exactly a half or more).

    Raises:
        QualityGateError: a kernel has too few zeros.
        InvariantError: the graph does not have the zeros of a kernel.
    """
    tensors = _weights(onnx.load(str(onnx_path)))
    rows = []
    for layer, kernel in kernels:
        _check(layer, kernel, method, sparsity)
        found = _find(kernel, tensors)
        if found is None:
            raise InvariantError(
                "The exported graph does not have the zeros of a pruned layer.",
                where=f"layer {layer}",
                expected=f"a weight of shape {kernel.shape} in some axis order with {int((kernel == 0).sum())} zeros",
                got=", ".join(f"{name} {value.shape}" for name, value in tensors.items()),
            )
        value = tensors.pop(found)
        zeros = int((value == 0).sum())
        rows.append(LayerSparsity(layer, found, int(value.size), zeros, zeros / value.size))
    return tuple(rows)


def _check(layer: str, kernel: NDArray[np.float32], method: PruneMethod, sparsity: float) -> None:
    if method is PruneMethod.N_M:
        groups = np.moveaxis(kernel, -2, -1).reshape(-1, GROUP)
        short = int(((groups == 0).sum(axis=1) < GROUP // 2).sum())
        if short:
            raise QualityGateError(
                "A pruned layer does not have the 2:4 pattern.",
                where=f"layer {layer}",
                expected="two zeros in every four input channels",
                got=f"{short} of {len(groups)} groups have fewer",
            )
        return
    share = float((kernel == 0).mean())
    # tfmot keeps round(size * (1 - sparsity)) weights, at least one.
    if share < sparsity - 1.0 / kernel.size:
        raise QualityGateError(
            "A pruned layer has too few zeros.",
            where=f"layer {layer}",
            expected=f"sparsity {sparsity}",
            got=f"{share:.4f}",
            remedy="train for more epochs, so that the schedule reaches its end",
        )


def _weights(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Float constants of the graph with more than one axis longer than 1."""
    constants = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants.update((node.output[0], item.t) for item in node.attribute if item.name == "value")
    arrays = {name: numpy_helper.to_array(item) for name, item in constants.items()}
    return {name: value for name, value in arrays.items() if value.dtype == np.float32 and value.squeeze().ndim > 1}


def _find(kernel: NDArray[np.float32], tensors: dict[str, NDArray[Any]]) -> str | None:
    zeros = (kernel == 0).squeeze()
    for name, value in tensors.items():
        candidate = (value == 0).squeeze()
        if candidate.size != zeros.size or candidate.ndim != zeros.ndim:
            continue
        for order in permutations(range(zeros.ndim)):
            turned = zeros.transpose(order)
            if turned.shape == candidate.shape and bool((candidate | ~turned).all()):
                return name
    return None
