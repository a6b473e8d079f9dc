"""QNN: Qualcomm's NPU, the HTP, through onnxruntime. On x86-64 Qualcomm's emulator of it answers.

The emulator is in the same library ("libQnnHtp.so ... (x86_64) Serves as an emulator for the hardware
accelerator", Qualcomm AI Runtime SDK 2.39, backend libraries). Its times say nothing of the device.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import onnxruntime_qnn
from numpy.typing import NDArray

from edgemill.artifact import Signature, TensorSpec
from edgemill.errors import ToolchainError
from edgemill.runtimes.base import LoadedModel, Runtime
from edgemill.runtimes.single import SingleSample

MODEL, CONFIG = "model.onnx", "qnn.json"
"""Names in the folder: the graph, and the options with which a device loads it."""
PROVIDER = "QNNExecutionProvider"

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}
_ALL_ON_NPU = "session.disable_cpu_ep_fallback"
_REGISTERED: set[str] = set()


class QnnModel(SingleSample):
    """A folder with an ONNX model and the options of the execution provider.

    Attributes:
        assigned: operators by execution provider, as onnxruntime shared them out.
    """

    runtime = "QNN"

    def __init__(self, path: Path) -> None:
        """Load the model of folder `path`; nothing may be left to the CPU.

        Raises:
            ToolchainError: it cannot be loaded, or operators would fall back to the CPU, which are named.
        """
        try:
            config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
            self._session = _session(path / MODEL, config, config["session_options"])
        except (OSError, ValueError, KeyError) as error:
            raise ToolchainError("The options of the model cannot be read.", where=str(path), got=str(error)) from error
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise ToolchainError(
                "QNN cannot load the model.",
                where=str(path),
                expected="every operator on the HTP",
                got=_left_to_cpu(path / MODEL, config) or " ".join(str(error).split())[:300],
            ) from error
        self.assigned = _assigned(self._session)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        super().__init__(path, Signature(inputs=tuple(map(_spec, inputs)), outputs=tuple(map(_spec, outputs))))

    def feed(self, stored: NDArray[np.generic]) -> Any:
        """See `SingleSample.feed`."""
        return {self.signature.inputs[0].name: stored}

    def infer(self, fed: Any) -> NDArray[np.generic]:
        """See `SingleSample.infer`."""
        try:
            output: NDArray[np.generic] = self._session.run([self.signature.outputs[0].name], fed)[0]
        except Exception as error:  # as above
            raise ToolchainError(
                "QNN failed to run the model.", where=str(self._path), got=" ".join(str(error).split())[:300]
            ) from error
        return output


class Qnn:
    """Loads folders with an ONNX model for QNN."""

    name = "qnn"
    kinds: tuple[str, ...] = ("qnn",)

    def load(self, path: Path, threads: int = 1) -> LoadedModel:
        """See `Runtime.load`; the NPU has no threads to choose."""
        return QnnModel(path)

    def version(self) -> str:
        """See `Runtime.version`."""
        return metadata.version("onnxruntime-qnn")


RUNTIME: Runtime = Qnn()


def _session(path: Path, config: Mapping[str, Any], further: Mapping[str, str]) -> onnxruntime.InferenceSession:
    if PROVIDER not in _REGISTERED:
        onnxruntime.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())
        _REGISTERED.add(PROVIDER)
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    for key, value in further.items():
        options.add_session_config_entry(key, value)
    options.add_provider_for_devices(devices, dict(config["provider_options"]))
    return onnxruntime.InferenceSession(str(path), options)


def _assigned(session: onnxruntime.InferenceSession) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        found.setdefault(part.ep_name, []).extend(node.op_type for node in part.get_nodes())
    return found


def _left_to_cpu(path: Path, config: Mapping[str, Any]) -> str:
    """Operators that QNN does not take, where the model loads with their help."""
    try:
        session = _session(path, config, {**config["session_options"], _ALL_ON_NPU: "0"})
    except Exception:  # noqa: BLE001 - the first failure is the one to tell
        return ""
    left = [name for provider, names in _assigned(session).items() if provider != PROVIDER for name in names]
    return f"on the CPU: {', '.join(sorted(set(left)))}" if left else ""


def _spec(tensor: Any) -> TensorSpec:
    if tensor.type not in _DTYPES:
        raise ToolchainError("The model's input or output is not floating point.", where=tensor.name, got=tensor.type)
    return TensorSpec(name=tensor.name, dtype=_DTYPES[tensor.type], shape=tuple(tensor.shape))
