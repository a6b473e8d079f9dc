"""OpenVINO on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from edgemill.artifact import Signature, TensorSpec
from edgemill.errors import ToolchainError
from edgemill.runtimes.base import LoadedModel, Runtime
from edgemill.runtimes.convert import batches, check_rows, check_samples, check_single_input, to_real, to_stored

GRAPH = "model.xml"
"""Name of the graph in the folder; its weights are beside it in model.bin."""
DEVICE = "CPU"


class OpenVinoModel:
    """A folder with OpenVINO's intermediate representation, compiled for the CPU.

    `predict` runs the samples one at a time (or in the file's own batch size where that is fixed), as a
    device does.
    """

    def __init__(self, path: Path, threads: int) -> None:
        """Compile the model of folder `path` for inference on `threads` threads, one at a time."""
        self._path = path
        core = openvino.Core()
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "f32",  # left alone, fp32 models run in bfloat16 on CPUs that have it
        }
        try:
            self.compiled = core.compile_model(core.read_model(path / GRAPH), DEVICE, options)
        except Exception as error:  # OpenVINO raises plain RuntimeError, and pybind's own exceptions
            raise ToolchainError("OpenVINO cannot load the model.", where=str(path), got=_first_line(error)) from error
        if (found := self.compiled.get_property("EXECUTION_DEVICES")) != [DEVICE]:
            raise ToolchainError(
                "OpenVINO does not run the model where it should.", where=str(path), expected=DEVICE, got=str(found)
            )
        self.signature = Signature(
            inputs=tuple(map(_spec, self.compiled.inputs)), outputs=tuple(map(_spec, self.compiled.outputs))
        )
        check_single_input(self.signature.inputs, path)
        self._request = self.compiled.create_infer_request()

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `LoadedModel.predict`."""
        entry, answer = self.signature.inputs[0], self.signature.outputs[0]
        check_samples(x, entry)
        if len(x) == 0:
            return np.zeros((0, *(size or 0 for size in answer.shape[1:])), np.float32)
        parts = [self._run(to_stored(batch, entry))[:count] for batch, count in batches(x, entry.shape[0] or 1)]
        return to_real(np.concatenate(parts), answer)

    def prepare(self, x: NDArray[np.float32]) -> Callable[[], Any]:
        """See `LoadedModel.prepare`."""
        entry = self.signature.inputs[0]
        check_samples(x, entry)
        tensor = openvino.Tensor(to_stored(x, entry))
        request = self._request

        def call() -> Any:
            request.infer([tensor])
            return request.get_output_tensor(0).data

        return call

    def _run(self, stored: NDArray[np.generic]) -> NDArray[np.generic]:
        try:
            self._request.infer([openvino.Tensor(stored)])
        except Exception as error:  # as above
            raise ToolchainError(
                "OpenVINO failed to run the model.", where=str(self._path), got=_first_line(error)
            ) from error
        output: NDArray[np.generic] = self._request.get_output_tensor(0).data.copy()  # the next call writes into it
        check_rows(output, len(stored), self._path)
        return output


class OpenVino:
    """Loads folders with OpenVINO's intermediate representation."""

    name = "openvino"
    kinds: tuple[str, ...] = ("openvino",)

    def load(self, path: Path, threads: int = 1) -> LoadedModel:
        """See `Runtime.load`."""
        return OpenVinoModel(path, threads)

    def version(self) -> str:
        """See `Runtime.version`."""
        return metadata.version("openvino")


RUNTIME: Runtime = OpenVino()


def _spec(port: Any) -> TensorSpec:
    shape = tuple(int(size.get_length()) if size.is_static else None for size in port.get_partial_shape())
    return TensorSpec(name=port.get_any_name(), dtype=np.dtype(port.get_element_type().to_dtype()).name, shape=shape)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " | ".join(lines[-2:])[:300] or type(error).__name__
