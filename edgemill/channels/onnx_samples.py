"""Tensors inside an ONNX graph on samples without labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import DataError, ToolchainError
from edgemill.runtimes.onnxruntime import PROVIDER, session_options


class Samples:
    """Samples of the training split, or of the calibration split where there is no training split.

    Args:
        data: of the run.
        count: at most so many.
        batch_size: samples per inference.
        seed: of the choice.

    Raises:
        DataError: both splits are empty.
    """

    def __init__(self, data: Dataset, count: int, batch_size: int, seed: int) -> None:
        split = SplitName.TRAIN if data.sizes[SplitName.TRAIN] else SplitName.CALIBRATION
        size = data.sizes[split]
        if size == 0:
            raise DataError(
                "There are no samples on which the channels can be judged.",
                where="data.split",
                expected="samples for training or for calibration",
                remedy="give data.split.calibration some samples",
            )
        self._data, self._split, self._batch = data, split, batch_size
        chosen = np.random.default_rng(seed).choice(size, min(count, size), replace=False)
        self._chosen = np.sort(chosen)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._chosen)

    def batches(self) -> Iterator[NDArray[np.float32]]:
        """Model inputs, float32 (n, ...)."""
        stored = self._data.raw(self._split)
        for start in range(0, len(self._chosen), self._batch):
            yield self._data.prepare(stored[self._chosen[start : start + self._batch]])


class Inside:
    """A graph that answers with tensors of its own.

    Args:
        model: with one input; not changed.
        tensors: names.

    Raises:
        ToolchainError: onnxruntime cannot load the graph.
    """

    def __init__(self, model: onnx.ModelProto, tensors: Sequence[str]) -> None:
        stored = {tensor.name for tensor in model.graph.initializer}
        self._entry = next(item.name for item in model.graph.input if item.name not in stored)
        self._wanted = [name for name in dict.fromkeys(tensors) if name != self._entry]
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        outputs = [
            helper.make_value_info(name, helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None))
            for name in self._wanted
        ]
        if outputs:
            del changed.graph.output[:]
            changed.graph.output.extend(outputs)
        options = session_options(1)
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(changed.SerializeToString(), options, providers=[PROVIDER])
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise ToolchainError(
                "onnxruntime cannot load the graph with its activations as outputs.",
                where="channels",
                got=str(error)[:2000],
            ) from error

    def __call__(self, x: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """The tensors by name for one batch.

        Raises:
            ToolchainError: onnxruntime cannot run the graph.
            DataError: one of them is not finite.
        """
        try:
            answers = self._session.run(self._wanted, {self._entry: x}) if self._wanted else []
        except Exception as error:  # as above
            raise ToolchainError(
                "onnxruntime failed to run the graph.", where="channels", got=str(error)[:2000]
            ) from error
        found = dict(zip(self._wanted, answers, strict=True)) | {self._entry: x}
        bad = [name for name, value in found.items() if not np.isfinite(value).all()]
        if bad:
            raise DataError(
                "An activation is not finite.",
                where=", ".join(bad[:5]),
                expected="finite values",
                remedy="look for NaN and infinity in the samples and in the weights",
            )
        return found
