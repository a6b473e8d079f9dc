"""Between real numbers and what a model stores: quantization of inputs, dequantization of outputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemill.artifact import TensorSpec
from edgemill.errors import DataError, ToolchainError

_PLAIN_INTEGERS = ("int32", "int64")
_FLOATS = ("float16", "float32", "float64")


def check_single_input(inputs: tuple[TensorSpec, ...], path: Path) -> None:
    """Refuse what `LoadedModel` cannot feed: other than one input, or one of an unknown meaning.

    Raises:
        ToolchainError: naming the inputs.
    """
    if len(inputs) != 1:
        raise ToolchainError(
            "The model does not have exactly one input.",
            where=str(path),
            expected="one input: a batch of samples",
            got=", ".join(spec.name for spec in inputs) or "none",
        )
    spec = inputs[0]
    if spec.scale is None and spec.dtype not in (*_FLOATS, *_PLAIN_INTEGERS):
        raise ToolchainError(
            "The model takes small integers but does not say what they mean.",
            where=f"{path}, input {spec.name}",
            expected="a scale and a zero point stored in the model",
            got=spec.dtype,
            remedy="export the model with a float input, or with quantization parameters on its input",
        )


def check_samples(x: NDArray[np.float32], spec: TensorSpec) -> None:
    """Refuse samples of another shape than the model's input.

    Raises:
        DataError: with both shapes.
    """
    wanted = spec.shape[1:]
    fits = x.ndim == len(spec.shape) and all(size in (None, got) for size, got in zip(wanted, x.shape[1:], strict=True))
    if not fits:
        raise DataError(
            "The samples do not have the shape of the model's input.",
            where=f"input {spec.name}",
            expected=str(("N", *wanted)),
            got=str(x.shape),
        )


def to_stored(x: NDArray[np.float32], spec: TensorSpec) -> NDArray[np.generic]:
    """Real numbers as the model's input stores them, C-contiguous.

    Quantized types: stored = clip(round(real / scale) + zero_point), rounded half to even as ONNX
    QuantizeLinear does, with the limits of the type.

    Raises:
        DataError: NaN or infinity for an integer input.
    """
    dtype = np.dtype(spec.dtype)
    if np.issubdtype(dtype, np.floating):
        return np.ascontiguousarray(x, dtype=dtype)
    if not np.isfinite(x).all():
        raise DataError("An integer input cannot hold NaN or infinity.", where=f"input {spec.name}")
    scaled = x if spec.scale is None else x / np.float32(spec.scale)
    limits = np.iinfo(dtype)
    stored = np.rint(scaled).astype(np.float64) + (spec.zero_point or 0)
    return np.ascontiguousarray(np.clip(stored, limits.min, limits.max).astype(dtype))


def to_real(y: NDArray[np.generic], spec: TensorSpec) -> NDArray[np.float32]:
    """What an output means: float32, real = scale * (stored - zero_point) where it is quantized."""
    if spec.scale is None:
        return np.asarray(y, dtype=np.float32)
    return (np.asarray(y, dtype=np.float32) - np.float32(spec.zero_point or 0)) * np.float32(spec.scale)


def batches(x: NDArray[np.float32], size: int) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Cut samples into batches of exactly `size`, the last one filled up by repeating its last sample.

    Yields:
        The batch, and how many of its samples count.
    """
    for start in range(0, len(x), size):
        part = x[start : start + size]
        count = len(part)
        if count < size:
            part = np.concatenate([part, np.repeat(part[-1:], size - count, axis=0)])
        yield part, count


def check_rows(output: NDArray[np.generic], samples: int, path: Path) -> None:
    """Refuse an output that does not have one row a sample.

    Raises:
        ToolchainError: with both sizes.
    """
    if output.shape[:1] != (samples,):
        raise ToolchainError(
            "The model's output does not have one row a sample.",
            where=str(path),
            expected=f"first dimension {samples}",
            got=str(output.shape),
        )
