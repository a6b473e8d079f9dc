"""TensorFlow Lite for Microcontrollers: the interpreter that runs on a microcontroller, built for this host.

Its reference kernels give the integers that a device gives; its times say nothing of one.
"""

from __future__ import annotations

import os
import re
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter as Verifier
from ai_edge_litert.interpreter import OpResolverType
from numpy.typing import NDArray
from tflite_micro import runtime as tflite_micro

from edgemill.artifact import Signature, TensorSpec
from edgemill.errors import ToolchainError
from edgemill.runtimes.base import LoadedModel, Runtime
from edgemill.runtimes.convert import batches, check_rows, check_samples, check_single_input, to_real, to_stored
from edgemill.runtimes.single import last_words

_ARENAS = (1 << 20, 1 << 24, 1 << 30)
"""Sizes that are tried one after the other; memory that is not used is never touched."""
_FULL = re.compile(r"missing: \d+")
_REPORT = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")


@dataclass(frozen=True)
class Arena:
    """Memory that a model takes in the interpreter, in bytes, with pointers of this host (8 bytes).

    Attributes:
        total: smallest arena in which it runs.
        head: activations and scratch buffers, which share memory over time.
        tail: what stays: structures of operators and tensors, and parameters of quantization.
    """

    total: int
    head: int
    tail: int


class TflmModel:
    """A TFLite file in the interpreter.

    It knows the batch size of the file only, so `predict` and what `prepare` returns run larger batches in
    portions. The signature therefore has no free sizes.
    """

    def __init__(self, path: Path, *, keep_tensors: bool = False) -> None:
        """Load `path`.

        Args:
            path: the file.
            keep_tensors: leave intermediate tensors as they were calculated, see `tensor`.

        Raises:
            ToolchainError: the file is damaged, or holds what the interpreter does not have.
        """
        self._path = path
        names = _verified_names(path)
        self._interpreter = _load(path, keep_tensors)
        self.signature = Signature(
            inputs=tuple(_spec(name, self._interpreter.get_input_details(i)) for i, name in enumerate(names[0])),
            outputs=tuple(_spec(name, self._interpreter.get_output_details(i)) for i, name in enumerate(names[1])),
        )
        check_single_input(self.signature.inputs, path)

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `LoadedModel.predict`."""
        entry, answer = self.signature.inputs[0], self.signature.outputs[0]
        check_samples(x, entry)
        if len(x) == 0:
            return np.zeros((0, *(size or 0 for size in answer.shape[1:])), np.float32)
        return to_real(self._run_all(self._portions(x)), answer)

    def prepare(self, x: NDArray[np.float32]) -> Callable[[], Any]:
        """See `LoadedModel.prepare`."""
        check_samples(x, self.signature.inputs[0])
        portions = self._portions(x)
        return lambda: self._run_all(portions)

    def arena(self) -> Arena:
        """Memory that the model takes, as the interpreter's own recording allocator counts it.

        Raises:
            ToolchainError: it does not say.
        """
        with _standard_error() as told:
            self._interpreter.invoke()  # some buffers are only asked for now
            self._interpreter.print_allocations()
            report = told()
        found = {name: int(count) for name, count in _REPORT.findall(report)}
        if found.keys() != {"total", "head", "tail"}:
            raise ToolchainError(
                "TensorFlow Lite Micro does not say how much memory a model takes.",
                where=str(self._path),
                expected="its report of arena allocations",
                got=last_words(report) or "nothing",
            )
        return Arena(**found)

    def tensor(self, index: int) -> NDArray[np.generic]:
        """An intermediate tensor of the last inference, flat, in the type of the file; needs `keep_tensors`."""
        return np.array(self._interpreter.GetTensor(index, 0)["tensor_data"]).reshape(-1)

    def _portions(self, x: NDArray[np.float32]) -> list[tuple[NDArray[np.generic], int]]:
        entry = self.signature.inputs[0]
        return [(to_stored(batch, entry), count) for batch, count in batches(x, entry.shape[0] or 1)]

    def _run_all(self, portions: list[tuple[NDArray[np.generic], int]]) -> NDArray[np.generic]:
        return np.concatenate([self._run(stored)[:count] for stored, count in portions])

    def _run(self, stored: NDArray[np.generic]) -> NDArray[np.generic]:
        interpreter = self._interpreter
        try:
            interpreter.reset()
            interpreter.set_input(stored, 0)
            interpreter.invoke()
            output: NDArray[np.generic] = np.array(interpreter.get_output(0))
        except (ValueError, RuntimeError) as error:
            raise ToolchainError(
                "TensorFlow Lite Micro failed to run the model.", where=str(self._path), got=last_words(str(error))
            ) from error
        check_rows(output, len(stored), self._path)
        return output


class Tflm:
    """Loads TFLite files for microcontrollers."""

    name = "tflite-micro"
    kinds: tuple[str, ...] = ("tflite-micro",)

    def load(self, path: Path, threads: int = 1) -> LoadedModel:
        """See `Runtime.load`; the interpreter has one thread whatever is asked."""
        return TflmModel(path)

    def version(self) -> str:
        """See `Runtime.version`."""
        return metadata.version("tflite-micro")


RUNTIME: Runtime = Tflm()


def _verified_names(path: Path) -> tuple[list[str], list[str]]:
    """Names of inputs and outputs. TFLM itself would follow the pointers of a damaged file anywhere."""
    try:
        verifier = Verifier(model_path=str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
        details = verifier.get_input_details(), verifier.get_output_details()
    except (ValueError, RuntimeError, OSError) as error:
        raise ToolchainError("This is no TFLite model.", where=str(path), got=last_words(str(error))) from error
    inputs, outputs = ([str(detail["name"]) for detail in side] for side in details)
    return inputs, outputs


def _load(path: Path, keep_tensors: bool) -> Any:
    config = (
        tflite_micro.InterpreterConfig.kPreserveAllTensors
        if keep_tensors
        else tflite_micro.InterpreterConfig.kAllocationRecording
    )
    content = path.read_bytes()
    for size in _ARENAS:
        with _standard_error() as told:
            try:
                return tflite_micro.Interpreter.from_bytes(content, arena_size=size, intrepreter_config=config)
            except (ValueError, RuntimeError, AttributeError, TypeError, IndexError, struct.error) as error:
                why = f"{last_words(told())} | {last_words(str(error))}".strip("| ")
                full = _FULL.search(told()) is not None
                cause = error
        if not full:
            break
    raise ToolchainError(
        "TensorFlow Lite Micro cannot load the model.",
        where=str(path),
        expected="operators and number formats that the interpreter has; it has no hybrid (dynamic-range) kernels",
        got=why,
        remedy="quantize with int8_static or int8_qat",
    ) from cause


def _spec(name: str, detail: dict[str, Any]) -> TensorSpec:
    parameters = detail["quantization_parameters"]
    quantized = len(parameters["scales"]) == 1 and float(parameters["scales"][0]) > 0
    return TensorSpec(
        name=name,
        dtype=np.dtype(detail["dtype"]).name,
        shape=tuple(int(size) for size in detail["shape"]),
        scale=float(parameters["scales"][0]) if quantized else None,
        zero_point=int(parameters["zero_points"][0]) if quantized else None,
    )


@contextmanager
def _standard_error() -> Iterator[Callable[[], str]]:
    """Catch what C++ writes to the descriptor of standard error; yields what was written so far."""
    with tempfile.TemporaryFile() as sink:
        saved = os.dup(2)
        os.dup2(sink.fileno(), 2)
        try:
            yield lambda: _content(sink)
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _content(sink: IO[bytes]) -> str:
    return os.pread(sink.fileno(), 1 << 20, 0).decode(errors="replace")
