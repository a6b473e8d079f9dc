"""What a loader hands on: the original as a function, and the ways to carry it further."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.artifact import Frozen, Signature
from edgemill.ingest.detect import Format

Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Unbridged(Frozen):
    """A layer that keeps a checkpoint from being trained further."""

    layer: str
    kind: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        """JSON form, as it stands in the facts of the ingested artifact."""
        return {"layer": self.layer, "class": self.kind, "reason": self.reason}


@dataclass
class Loaded:
    """A checkpoint in memory.

    Attributes:
        form: the format it came in.
        original: the checkpoint's own answers in its own framework, first output only.
        input_shape: of one sample; None where the size is free.
        write_onnx: writes fp32 ONNX; its second argument fixes free dimensions (one sample's shape).
        keras: the same model in Keras 2, ready for training, or None.
        unbridged: why there is no `keras`.
        saved_model: folder that the LiteRT converter can read, or a function that writes one.
        tflite: the original file where it is TFLite.
        vocabulary: the input holds integers in 0 .. vocabulary-1, or None where it holds real numbers.
        notes: further facts, JSON values.
        keep_alive: whatever the functions above need to stay in memory.
    """

    form: Format
    original: Predict
    input_shape: tuple[int | None, ...]
    write_onnx: Callable[[Path, tuple[int, ...] | None], Signature]
    keras: Any = None
    unbridged: list[Unbridged] = field(default_factory=list)
    saved_model: Path | Callable[[Path], None] | None = None
    tflite: Path | None = None
    vocabulary: int | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    keep_alive: Any = None
