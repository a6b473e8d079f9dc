"""The interface of an inference runtime. The same adapters validate here and serve on a device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgemill.artifact import Signature


class LoadedModel(Protocol):
    """A model file loaded for inference."""

    signature: Signature

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Answer a batch of any size.

        Args:
            x: float32 (N, *sample_shape), preprocessed. Where the model takes integers, the
                adapter quantizes with the scale and zero point read from the model.

        Returns:
            float32 (N, *output_shape) of the first output, dequantized.
        """

    def prepare(self, x: NDArray[np.float32]) -> Callable[[], Any]:
        """One inference of exactly this batch as a call without arguments, for timing.

        Conversion of `x` to the model's input type happens here, outside the timed call.
        """


class Runtime(Protocol):
    """A way to load model files of one kind."""

    name: str
    kinds: tuple[str, ...]

    def load(self, path: Path, threads: int = 1) -> LoadedModel:
        """Load a model file.

        Raises:
            ToolchainError: the file cannot be loaded, or not all of it runs where it should.
        """

    def version(self) -> str:
        """Version of the installed runtime."""
