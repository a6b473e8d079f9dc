"""Edgemill: from one training checkpoint to verified models for every edge device."""

import os

__version__ = "0.1.0"

# onnxruntime reports home since 1.29, and reads this when it is imported; children inherit it
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
