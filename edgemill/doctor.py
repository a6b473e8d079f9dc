"""What is installed on this machine, and what each target lacks."""

from __future__ import annotations

import platform
from typing import Any

from edgemill.step import tool_versions
from edgemill.targets import load_target, target_names
from edgemill.targets.capability import capability

PACKAGES = (
    "edgemill",
    "numpy",
    "onnx",
    "onnxruntime",
    "ai-edge-litert",
    "tensorflow",
    "tf-keras",
    "keras",
    "tensorflow-model-optimization",
    "tf2onnx",
    "prefect",
    "fastapi",
    "mlflow",
)


def examine() -> dict[str, Any]:
    """Versions of what Edgemill stands on (`absent` where missing), and per target the list of what it lacks."""
    return {
        "machine": {"arch": platform.machine(), "system": platform.platform(), "python": platform.python_version()},
        "packages": tool_versions(PACKAGES),
        "targets": {name: capability(load_target(name)) for name in target_names()},
    }
