"""What of shared weights is in a file: the levels in an fp32 ONNX graph, the distinct bytes in an int8 file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from edgemill.cluster.codebook import GRID, from_rows, to_rows

_TOLERANCE = 0.01
"""Steps of the int8 grid by which a weight of the graph may miss its level."""


@dataclass(frozen=True)
class Kernel:
    """A clustered kernel of the Keras model.

    Attributes:
        layer: name of its layer.
        shape: of the kernel.
        axes: that count output channels.
        steps: its weights in steps of their channel's scale/127, int32 (weights of a channel, output channels).
    """

    layer: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    steps: NDArray[np.int32]


@dataclass(frozen=True)
class LayerClusters:
    """A clustered layer in the ONNX graph.

    Attributes:
        layer: name of the Keras layer.
        tensor: name of the ONNX weight that holds its kernel; None where no weight has its levels.
        weights: elements of the kernel.
        clusters: different values, each channel divided by its largest magnitude.
        zeros: exact zeros.
        entropy_bits: of these values, per weight: what no entropy coder goes below.
    """

    layer: str
    tensor: str | None
    weights: int
    clusters: int
    zeros: int
    entropy_bits: float


def find(kernels: Sequence[Kernel], onnx_path: Path) -> tuple[LayerClusters, ...]:
    """Find every clustered kernel in an fp32 graph and count its values there.

    A kernel is recognised by its levels, in any order of its axes; the export may scale output channels,
    also by a negative factor.

    Args:
        kernels: in Keras layout.
        onnx_path: the exported graph.
    """
    tensors = _constants(onnx.load(str(onnx_path)), TensorProto.FLOAT)
    rows = []
    for kernel in kernels:
        found = _match(kernel, tensors)
        steps = kernel.steps if found is None else found[1]
        if found is not None:
            del tensors[found[0]]
        _, counts = np.unique(steps, return_counts=True)
        share = counts / steps.size
        rows.append(
            LayerClusters(
                layer=kernel.layer,
                tensor=None if found is None else found[0],
                weights=int(steps.size),
                clusters=len(counts),
                zeros=int((steps == 0).sum()),
                entropy_bits=float(-(share * np.log2(share)).sum()),
            )
        )
    return tuple(rows)


def int8_weights(path: Path) -> dict[str, NDArray[Any]]:
    """Weights of more than one axis that a quantized `.onnx` or `.tflite` file holds as 8-bit integers, by name."""
    if path.suffix == ".onnx":
        model = onnx.load(str(path))
        return _constants(model, TensorProto.INT8) | _constants(model, TensorProto.UINT8)
    # Tensors are not allocated, so only constants have content.
    interpreter = Interpreter(
        model_path=str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    found = {}
    for tensor in interpreter.get_tensor_details():
        if tensor["dtype"] == np.int8 and sum(size > 1 for size in tensor["shape"]) > 1:
            try:
                found[str(tensor["name"])] = np.array(interpreter.get_tensor(tensor["index"]))
            except ValueError:
                continue
    return found


def distinct_bytes(path: Path) -> dict[str, int]:
    """Number of different bytes in each 8-bit weight of a quantized file, by name of the tensor."""
    return {name: len(np.unique(value)) for name, value in int8_weights(path).items()}


def _constants(model: onnx.ModelProto, kind: int) -> dict[str, NDArray[Any]]:
    held = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            held.update((node.output[0], item.t) for item in node.attribute if item.name == "value")
    arrays = {name: numpy_helper.to_array(item) for name, item in held.items() if item.data_type == kind}
    return {name: value for name, value in arrays.items() if value.squeeze().ndim > 1}


def _match(kernel: Kernel, tensors: dict[str, NDArray[Any]]) -> tuple[str, NDArray[np.int32]] | None:
    """Name of the weight that has the kernel's levels, and its own steps."""
    long = [axis for axis, size in enumerate(kernel.shape) if size > 1]
    wanted = from_rows(np.abs(kernel.steps).astype(np.float32), kernel.shape, kernel.axes).squeeze()
    axes = [long.index(axis) for axis in kernel.axes if axis in long]
    for name, value in tensors.items():
        squeezed = value.squeeze()
        if squeezed.size != wanted.size or squeezed.ndim != wanted.ndim:
            continue
        for order in permutations(range(squeezed.ndim)):
            turned = squeezed.transpose(order)
            if turned.shape != wanted.shape:
                continue
            rows = to_rows(turned, axes).astype(np.float64)
            top = np.abs(rows).max(axis=0)
            steps = GRID * rows / np.where(top > 0, top, 1.0)
            if np.abs(np.abs(steps) - to_rows(wanted, axes)).max() < _TOLERANCE:
                return name, np.rint(steps).astype(np.int32)
    return None
