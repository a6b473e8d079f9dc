"""onnxruntime on the CPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgemill.artifact import Signature, TensorSpec
from edgemill.errors import ToolchainError
from edgemill.runtimes.base import LoadedModel, Runtime
from edgemill.runtimes.convert import batches, check_rows, check_samples, check_single_input, to_real, to_stored

QUANTIZATION_KEY = "edgemill.quantization"
"""Key in an ONNX file's metadata: JSON {tensor name: [scale, zero point]} of integer inputs and outputs.

ONNX has no field for them; files whose inputs and outputs are floating point do not need the key.
"""

PROVIDER = "CPUExecutionProvider"

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(uint16)": "uint16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Options with which a device loads a model.

    Optimization is left at onnxruntime's default, ORT_ENABLE_ALL, also for graphs that were
    optimized before: this is what a device does, it is idempotent on them, and only there may
    the layout be rewritten for the CPU at hand.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # Spinning threads would steal the core of whatever else is measured or served beside the model.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


class OnnxRuntimeModel:
    """An ONNX file in an onnxruntime session.

    `predict` runs the samples one at a time (or in the file's own batch size where that is fixed), as
    a device does: with quantization at run time the answer to a sample depends on its whole batch.
    """

    def __init__(self, path: Path, options: onnxruntime.SessionOptions) -> None:
        """Load `path` with the given options; see `session_options`."""
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=[PROVIDER])
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise ToolchainError(
                "onnxruntime cannot load the model.", where=str(path), got=_first_line(error)
            ) from error
        if self.session.get_providers() != [PROVIDER]:
            raise ToolchainError(
                "onnxruntime does not run the model where it should.",
                where=str(path),
                expected=PROVIDER,
                got=", ".join(self.session.get_providers()),
            )
        self._path = path
        self.signature = self._read_signature()
        check_single_input(self.signature.inputs, path)

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `LoadedModel.predict`."""
        entry, answer = self.signature.inputs[0], self.signature.outputs[0]
        check_samples(x, entry)
        if len(x) == 0:
            return np.zeros((0, *(size or 0 for size in answer.shape[1:])), np.float32)
        parts = []
        for batch, count in batches(x, entry.shape[0] or 1):
            parts.append(self._run(to_stored(batch, entry))[:count])
        return to_real(np.concatenate(parts), answer)

    def prepare(self, x: NDArray[np.float32]) -> Callable[[], Any]:
        """See `LoadedModel.prepare`."""
        entry = self.signature.inputs[0]
        check_samples(x, entry)
        feed = {entry.name: to_stored(x, entry)}
        names = [self.signature.outputs[0].name]
        run = self.session.run
        return lambda: run(names, feed)[0]

    def _run(self, stored: NDArray[np.generic]) -> NDArray[np.generic]:
        entry, answer = self.signature.inputs[0], self.signature.outputs[0]
        try:
            output: NDArray[np.generic] = self.session.run([answer.name], {entry.name: stored})[0]
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise ToolchainError(
                "onnxruntime failed to run the model.", where=str(self._path), got=_first_line(error)
            ) from error
        check_rows(output, len(stored), self._path)
        return output

    def _read_signature(self) -> Signature:
        scales = self._read_scales()

        def spec(tensor: Any) -> TensorSpec:
            if tensor.type not in _DTYPES:
                raise ToolchainError(
                    "The model has an input or output that is no plain tensor.",
                    where=f"{self._path}, {tensor.name}",
                    got=tensor.type,
                )
            scale, zero_point = scales.get(tensor.name, (None, None))
            shape = tuple(size if isinstance(size, int) and size >= 0 else None for size in tensor.shape)
            return TensorSpec(
                name=tensor.name, dtype=_DTYPES[tensor.type], shape=shape, scale=scale, zero_point=zero_point
            )

        return Signature(
            inputs=tuple(map(spec, self.session.get_inputs())), outputs=tuple(map(spec, self.session.get_outputs()))
        )

    def _read_scales(self) -> dict[str, tuple[float, int]]:
        text = self.session.get_modelmeta().custom_metadata_map.get(QUANTIZATION_KEY, "{}")
        try:
            return {str(name): (float(scale), int(zero)) for name, (scale, zero) in json.loads(text).items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise ToolchainError(
                "The model's quantization metadata cannot be read.",
                where=f"{self._path}, metadata {QUANTIZATION_KEY}",
                expected="JSON {name: [scale, zero point]}",
                got=text[:100],
            ) from error


class OnnxRuntime:
    """Loads ONNX files."""

    name = "onnxruntime"
    kinds: tuple[str, ...] = ("onnx",)

    def load(self, path: Path, threads: int = 1) -> LoadedModel:
        """See `Runtime.load`."""
        return OnnxRuntimeModel(path, session_options(threads))

    def version(self) -> str:
        """See `Runtime.version`."""
        return str(onnxruntime.__version__)


RUNTIME: Runtime = OnnxRuntime()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
