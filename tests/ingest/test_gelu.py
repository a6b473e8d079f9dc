"""TensorFlow writes GELU with Erfc, which ONNX does not have."""

from __future__ import annotations

import numpy as np
import onnxruntime

from edgemill.ingest.export import keras_to_onnx
from edgemill.tf import keras


def test_gelu_is_exported(tmp_path):
    model = keras.Sequential([keras.layers.Dense(8, activation="gelu", input_shape=(5,)), keras.layers.Dense(3)])
    keras_to_onnx(model, tmp_path / "m.onnx")
    x = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(answer, model(x).numpy(), atol=1e-6)
