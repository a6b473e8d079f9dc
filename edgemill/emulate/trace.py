"""Values of a model's intermediate tensors, sample by sample; used on the host and inside the emulator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.emulate.kernels import open_kernels
from edgemill.errors import InvariantError
from edgemill.runtimes.convert import batches, check_samples, to_stored

Tensors = dict[str, NDArray[np.generic]]


def trace(path: Path, kind: str, x: NDArray[np.float32], exact: bool, threads: int = 1) -> Tensors:
    """Run samples one at a time and keep every tensor that a model shows.

    Args:
        path: for onnx, a file whose intermediate tensors were made outputs (see `taps`); for tflite the
            file itself, which runs without XNNPACK, because a delegate does not keep its tensors.
        kind: onnx or tflite.
        x: float32 (N, *sample_shape).
        exact: see `open_kernels`.
        threads: of one inference.

    Returns:
        by name, in order of calculation: (N, *shape) in the type in which it is stored. Tensors whose
        shape changes from sample to sample, and such that hold no plain numbers, are left out.
    """
    if kind == "onnx":
        rows = _onnx(path, x, exact, threads)
    elif kind == "tflite":
        rows = _tflite(path, x, threads)
    else:
        raise InvariantError("Files of this kind cannot be traced.", got=kind)
    collected: dict[str, list[NDArray[np.generic]]] = {}
    for row in rows:
        for name, value in row.items():
            collected.setdefault(name, []).append(value)
    return {name: np.stack(values) for name, values in collected.items() if len({v.shape for v in values}) == 1}


def _onnx(path: Path, x: NDArray[np.float32], exact: bool, threads: int) -> Iterator[dict[str, Any]]:
    model: Any = open_kernels(path, "onnx", exact, threads)
    entry = model.signature.inputs[0]
    check_samples(x, entry)
    names = [output.name for output in model.session.get_outputs()]
    for sample in x:
        for batch, _ in batches(sample[None], entry.shape[0] or 1):
            values = model.session.run(names, {entry.name: to_stored(batch, entry)})
            yield {name: value for name, value in zip(names, values, strict=True) if _is_plain(value)}


def _tflite(path: Path, x: NDArray[np.float32], threads: int) -> Iterator[dict[str, Any]]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    from edgemill.runtimes.litert import LiteRtModel

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    entry = LiteRtModel(path, threads, plain).signature.inputs[0]
    check_samples(x, entry)
    interpreter = Interpreter(
        model_path=str(path),
        num_threads=threads,
        experimental_op_resolver_type=plain,
        experimental_preserve_all_tensors=True,
    )
    size = entry.shape[0] or 1
    index = int(interpreter.get_input_details()[0]["index"])
    interpreter.resize_tensor_input(index, [size, *x.shape[1:]], strict=True)
    interpreter.allocate_tensors()
    names = {int(detail["index"]): str(detail["name"]) for detail in interpreter.get_tensor_details()}
    order = [int(output) for operator in interpreter._get_ops_details() for output in operator["outputs"]]
    for sample in x:
        for batch, _ in batches(sample[None], size):
            interpreter.reset_all_variables()
            interpreter.set_tensor(index, to_stored(batch, entry))
            interpreter.invoke()
            yield {names[i]: value for i in order if _is_plain(value := _tensor(interpreter, i))}


def _is_plain(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub"


def _tensor(interpreter: Any, index: int) -> NDArray[np.generic] | None:
    try:
        value: NDArray[np.generic] = interpreter.get_tensor(index)
    except ValueError:  # a tensor without content, e.g. of an operator that was folded away
        return None
    return value
