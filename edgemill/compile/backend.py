"""Which backend makes the files of a target. The nouns are in `edgemill.compile.route`."""

from __future__ import annotations

from edgemill.compile.c_routes import C_BACKEND
from edgemill.compile.iree_routes import IREE_BACKEND
from edgemill.compile.litert_routes import LITERT_BACKEND
from edgemill.compile.ncnn_routes import NCNN_BACKEND
from edgemill.compile.onnxruntime_routes import ONNXRUNTIME_BACKEND
from edgemill.compile.openvino_routes import OPENVINO_BACKEND
from edgemill.compile.ort_format_routes import ORT_FORMAT_BACKEND
from edgemill.compile.qnn_routes import QNN_BACKEND
from edgemill.compile.rknn_routes import RKNN_BACKEND
from edgemill.compile.route import Backend, Refusal, Route
from edgemill.compile.tensorrt_routes import TENSORRT_BACKEND
from edgemill.compile.tflm_routes import TFLM_BACKEND
from edgemill.compile.torch_routes import COREML_BACKEND, EXECUTORCH_BACKEND
from edgemill.compile.tvm_routes import TVM_BACKEND
from edgemill.compile.vela_routes import VELA_BACKEND
from edgemill.errors import InvariantError
from edgemill.targets.spec import Target

__all__ = ["BACKENDS", "Backend", "Refusal", "Route", "backend_of"]

BACKENDS: dict[str, Backend] = {
    "coreml": COREML_BACKEND,
    "executorch": EXECUTORCH_BACKEND,
    "iree": IREE_BACKEND,
    "ncnn": NCNN_BACKEND,
    "tvm": TVM_BACKEND,
    "c": C_BACKEND,
    "litert": LITERT_BACKEND,
    "onnxruntime": ONNXRUNTIME_BACKEND,
    "openvino": OPENVINO_BACKEND,
    "tflite-micro": TFLM_BACKEND,
    "vela": VELA_BACKEND,
    "ort_format": ORT_FORMAT_BACKEND,
    "qnn": QNN_BACKEND,
    "rknn": RKNN_BACKEND,
    "tensorrt": TENSORRT_BACKEND,
}
"""By the name that target files give in `backend`."""


def backend_of(target: Target) -> Backend:
    """The backend of a target.

    Raises:
        InvariantError: the target's file names a backend that does not exist.
    """
    if target.backend not in BACKENDS:
        raise InvariantError(
            "No such backend.", where=f"target {target.name}", got=target.backend, expected=", ".join(BACKENDS)
        )
    return BACKENDS[target.backend]
