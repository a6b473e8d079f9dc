"""Models that take one sample a call, as compilers with fixed shapes make them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.artifact import Signature
from edgemill.errors import ToolchainError
from edgemill.runtimes.convert import check_samples, check_single_input, to_real, to_stored


class SingleSample(ABC):
    """A loaded model with a batch of one in its shapes; larger batches are answered one after the other."""

    runtime: str
    """Name of the runtime, for messages."""

    def __init__(self, path: Path, signature: Signature) -> None:
        """Keep what is known of a model.

        Args:
            path: file or folder, for messages.
            signature: every shape is known and begins with 1.

        Raises:
            ToolchainError: there is not exactly one input, or a shape is open.
        """
        self._path = path
        self.signature = signature
        check_single_input(signature.inputs, path)
        for spec in (*signature.inputs, *signature.outputs):
            if spec.shape[:1] != (1,) or None in spec.shape:
                raise ToolchainError(
                    "The model does not take one sample a call.",
                    where=f"{path}, {spec.name}",
                    expected="a shape that begins with 1 and has no open size",
                    got=str(spec.shape),
                )

    @abstractmethod
    def feed(self, stored: NDArray[np.generic]) -> Any:
        """What the runtime takes, from an array (1, *sample_shape) of the input's type; not timed."""

    @abstractmethod
    def infer(self, fed: Any) -> NDArray[np.generic]:
        """One inference: the first output (1, *output_shape), in memory that later calls leave alone."""

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `LoadedModel.predict`."""
        entry, answer = self.signature.inputs[0], self.signature.outputs[0]
        check_samples(x, entry)
        if len(x) == 0:
            return np.zeros((0, *(size or 0 for size in answer.shape[1:])), np.float32)
        return to_real(np.concatenate([self._answer(x[index : index + 1]) for index in range(len(x))]), answer)

    def prepare(self, x: NDArray[np.float32]) -> Callable[[], Any]:
        """See `LoadedModel.prepare`."""
        entry = self.signature.inputs[0]
        check_samples(x, entry)
        fed = [self.feed(to_stored(x[index : index + 1], entry)) for index in range(len(x))]
        infer = self.infer
        if len(fed) == 1:
            only = fed[0]
            return lambda: infer(only)
        return lambda: np.concatenate([infer(each) for each in fed])

    def _answer(self, sample: NDArray[np.float32]) -> NDArray[np.generic]:
        try:
            output = self.infer(self.feed(to_stored(sample, self.signature.inputs[0])))
        except ToolchainError:
            raise
        except Exception as error:  # the runtimes' exceptions have no common base
            raise ToolchainError(
                f"{self.runtime} failed to run the model.", where=str(self._path), got=last_words(str(error))
            ) from error
        if output.shape != self.signature.outputs[0].shape:
            raise ToolchainError(
                "The model's output has another shape than its signature.",
                where=str(self._path),
                expected=str(self.signature.outputs[0].shape),
                got=str(output.shape),
            )
        return output


def last_words(told: str, lines: int = 3) -> str:
    """The end of what a foreign tool printed, on one line of at most 600 characters."""
    kept = [line.strip() for line in told.splitlines() if line.strip()]
    return " | ".join(kept[-lines:])[-600:]
