"""LiteRT (TensorFlow Lite) with its XNNPACK delegate, without TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from edgemill.artifact import Signature, TensorSpec
from edgemill.errors import ToolchainError
from edgemill.runtimes.base import LoadedModel, Runtime
from edgemill.runtimes.convert import batches, check_rows, check_samples, check_single_input, to_real, to_stored


class LiteRtModel:
    """A TFLite file in a LiteRT interpreter.

    The interpreter is made with its default op resolver, which applies XNNPACK: plain kernels are
    about five times slower. `predict` runs the samples one at a time (or in the file's own batch
    size where that is fixed), as a device does.
    """

    def __init__(self, path: Path, threads: int, resolver: OpResolverType = OpResolverType.AUTO) -> None:
        """Load `path` to run on `threads` threads; another `resolver` gives plain kernels, for comparison."""
        self._path = path
        try:
            self.interpreter = Interpreter(
                model_path=str(path), num_threads=threads, experimental_op_resolver_type=resolver
            )
            self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError, OSError) as error:
            raise ToolchainError("LiteRT cannot load the model.", where=str(path), got=_one_line(error)) from error
        self.signature = Signature(
            inputs=tuple(_spec(detail, path) for detail in self.interpreter.get_input_details()),
            outputs=tuple(_spec(detail, path) for detail in self.interpreter.get_output_details()),
        )
        check_single_input(self.signature.inputs, path)
        detail = self.interpreter.get_input_details()[0]
        self._input = int(detail["index"])
        self._output = int(self.interpreter.get_output_details()[0]["index"])
        self._shape = tuple(int(size) for size in detail["shape"])

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `LoadedModel.predict`."""
        entry, answer = self.signature.inputs[0], self.signature.outputs[0]
        check_samples(x, entry)
        if len(x) == 0:
            return np.zeros((0, *(size or 0 for size in answer.shape[1:])), np.float32)
        size = entry.shape[0] or 1
        self._resize((size, *x.shape[1:]))
        parts = []
        for batch, count in batches(x, size):
            parts.append(self._run(to_stored(batch, entry))[:count])
        return to_real(np.concatenate(parts), answer)

    def prepare(self, x: NDArray[np.float32]) -> Callable[[], Any]:
        """See `LoadedModel.prepare`. The call copies the input in and the output out, as a device must."""
        entry = self.signature.inputs[0]
        check_samples(x, entry)
        stored = to_stored(x, entry)
        interpreter, index, output = self.interpreter, self._input, self._output
        self._resize(stored.shape)

        def call() -> Any:
            if self._shape != stored.shape:
                self._resize(stored.shape)
            interpreter.set_tensor(index, stored)
            interpreter.invoke()
            return interpreter.get_tensor(output)

        return call

    def _resize(self, shape: tuple[int, ...]) -> None:
        if self._shape == shape:
            return
        try:
            self.interpreter.resize_tensor_input(self._input, list(shape), strict=True)
            self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ToolchainError(
                "LiteRT cannot run the model with this input shape.",
                where=str(self._path),
                expected=str(self.signature.inputs[0].shape),
                got=f"{shape}: {_one_line(error)}",
            ) from error
        self._shape = shape

    def _run(self, stored: NDArray[np.generic]) -> NDArray[np.generic]:
        try:
            self.interpreter.reset_all_variables()
            self.interpreter.set_tensor(self._input, stored)
            self.interpreter.invoke()
            output: NDArray[np.generic] = self.interpreter.get_tensor(self._output)
        except (ValueError, RuntimeError) as error:
            raise ToolchainError(
                "LiteRT failed to run the model.", where=str(self._path), got=_one_line(error)
            ) from error
        check_rows(output, len(stored), self._path)
        return output


class LiteRt:
    """Loads TFLite files."""

    name = "ai-edge-litert"
    kinds: tuple[str, ...] = ("tflite",)

    def load(self, path: Path, threads: int = 1) -> LoadedModel:
        """See `Runtime.load`."""
        return LiteRtModel(path, threads)

    def version(self) -> str:
        """See `Runtime.version`."""
        return metadata.version("ai-edge-litert")


RUNTIME: Runtime = LiteRt()


def _spec(detail: dict[str, Any], path: Path) -> TensorSpec:
    parameters = detail["quantization_parameters"]
    scales, zeros = parameters["scales"], parameters["zero_points"]
    if len(scales) > 1:
        raise ToolchainError(
            "An input or output has a scale for every channel.",
            where=f"{path}, {detail['name']}",
            expected="one scale",
            got=f"{len(scales)} scales",
        )
    quantized = len(scales) == 1 and float(scales[0]) > 0
    return TensorSpec(
        name=detail["name"],
        dtype=np.dtype(detail["dtype"]).name,
        shape=tuple(int(size) if size >= 0 else None for size in detail["shape_signature"]),
        scale=float(scales[0]) if quantized else None,
        zero_point=int(zeros[0]) if quantized else None,
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
