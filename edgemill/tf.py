"""TensorFlow with Keras 2, set up once. Import `tf` and `keras` from here, never directly.

tfmot and the LiteRT converter need Keras 2 (`tf_keras`), which TensorFlow only uses when
TF_USE_LEGACY_KERAS is set before its first import.

Every operation is deterministic: equal inputs, seed and machine give equal bits, or TensorFlow
refuses the operation. On CPUs this costs no time that can be measured.
"""

from __future__ import annotations

import os
import sys

from edgemill.errors import InvariantError

if "tensorflow" in sys.modules and os.environ.get("TF_USE_LEGACY_KERAS") != "1":
    raise InvariantError(
        "TensorFlow was imported before edgemill.tf.",
        expected="TF_USE_LEGACY_KERAS=1 before the first import of tensorflow",
        remedy="import edgemill.tf first",
    )
os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import tensorflow as tf
import tf_keras as keras

tf.get_logger().setLevel("ERROR")
tf.config.experimental.enable_op_determinism()
tf.random.set_seed(0)  # without any seed random operations are refused; `fresh` sets the one that counts

__all__ = ["fresh", "keras", "tf"]


def fresh(seed: int) -> None:
    """Forget every earlier model of this process and seed all generators."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
