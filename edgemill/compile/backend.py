"""Which backend makes the files of a target. The nouns are in `edgemill.compile.route`."""

from __future__ import annotations

from edgemill.compile.litert_routes import LITERT_BACKEND
from edgemill.compile.onnxruntime_routes import ONNXRUNTIME_BACKEND
from edgemill.compile.openvino_routes import OPENVINO_BACKEND
from edgemill.compile.route import Backend, Refusal, Route
from edgemill.errors import InvariantError
from edgemill.targets.spec import Target

__all__ = ["BACKENDS", "Backend", "Refusal", "Route", "backend_of"]

BACKENDS: dict[str, Backend] = {
    "litert": LITERT_BACKEND,
    "onnxruntime": ONNXRUNTIME_BACKEND,
    "openvino": OPENVINO_BACKEND,
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
