"""Tensors of a graph on calibration samples, a batch at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import ToolchainError
from edgemill.runtimes.onnxruntime import PROVIDER, session_options


class Samples:
    """The calibration samples that a repair looks at.

    Attributes:
        size: number of samples.
        batch_size: samples per inference.
    """

    def __init__(self, data: Dataset, batch_size: int, most: int = 1000) -> None:
        """Take the first `most` samples of the calibration split."""
        self._data = data
        self.size = min(data.sizes[SplitName.CALIBRATION], most)
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Batches, float32 (N, *sample_shape)."""
        for start in range(0, self.size, self.batch_size):
            stop = min(start + self.batch_size, self.size)
            yield self._data.features(SplitName.CALIBRATION, start, stop)


class Probe:
    """A graph of which some tensors can be read. QDQ pairs are computed as they are written, in float."""

    def __init__(self, model: onnx.ModelProto, tensors: Sequence[str]) -> None:
        """Make a session whose outputs are the given floating-point tensors.

        Raises:
            ToolchainError: onnxruntime cannot load the graph.
        """
        self._names = list(dict.fromkeys(tensors))
        graph = model.graph
        self._entry = graph.input[0].name
        options = session_options(1)
        # Fused kernels round in ways that depend on the machine and on which tensors are read.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        kept = list(graph.output)
        # The weights may be large: the graph is changed for a moment instead of copied.
        del graph.output[:]
        wanted = [name for name in self._names if name != self._entry]
        graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in wanted)
        if not wanted:
            graph.output.extend(kept)
        try:
            self._session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[PROVIDER])
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise ToolchainError(
                "onnxruntime cannot load the graph with its activations as outputs.",
                where="repair",
                got=str(error)[:2000],
            ) from error
        finally:
            del graph.output[:]
            graph.output.extend(kept)
        self._run = onnxruntime.RunOptions()
        self._run.only_execute_path_to_fetches = True

    def __call__(self, x: NDArray[np.float32], tensors: Sequence[str] | None = None) -> dict[str, NDArray[np.float32]]:
        """Values of tensors (all that were named, if none are given) for a batch.

        Raises:
            ToolchainError: onnxruntime cannot run the graph.
        """
        asked = self._names if tensors is None else list(tensors)
        wanted = [name for name in asked if name != self._entry]
        try:
            held: list[Any] = list(self._session.run(wanted, {self._entry: x}, self._run)) if wanted else []
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise ToolchainError(
                "onnxruntime failed to run the graph on calibration samples.", where="repair", got=str(error)[:2000]
            ) from error
        found = dict(zip(wanted, held, strict=True))
        return found | ({self._entry: x} if self._entry in asked else {})


def highest(model: onnx.ModelProto, axes: Mapping[str, int], samples: Samples) -> dict[str, NDArray[np.float64]]:
    """Largest magnitude of every channel of some tensors.

    Args:
        model: fp32 graph.
        axes: names of tensors, each with the dimension of its channels.
        samples: what goes in.

    Returns:
        (channels,) by name.
    """
    found: dict[str, NDArray[np.float64]] = {}
    if not axes:
        return found
    probe = Probe(model, list(axes))
    for x in samples:
        for name, values in probe(x).items():
            moved = np.moveaxis(np.abs(values), axes[name], -1)
            most = moved.reshape(-1, moved.shape[-1]).max(axis=0, initial=0.0).astype(np.float64)
            found[name] = np.maximum(found[name], most) if name in found else most
    return found


def sqnr_db(reference: onnx.ModelProto, model: onnx.ModelProto, samples: Samples) -> float | None:
    """Signal-to-quantization-noise ratio of a graph's outputs.

    Args:
        reference: fp32 graph.
        model: another form of it with as many outputs.
        samples: what goes in.

    Returns:
        10 log10(sum of squared answers / sum of squared differences), in dB, the lowest of all floating-point outputs;
        None where the answers are equal, or all 0.
    """
    pairs = [
        (ours.name, theirs.name)
        for ours, theirs in zip(reference.graph.output, model.graph.output, strict=True)
        if ours.type.tensor_type.elem_type == TensorProto.FLOAT
    ]
    left, right = Probe(reference, [a for a, _ in pairs]), Probe(model, [b for _, b in pairs])
    signal, noise = np.zeros(len(pairs)), np.zeros(len(pairs))
    for x in samples:
        expected, found = left(x), right(x)
        for index, (a, b) in enumerate(pairs):
            exact = expected[a].astype(np.float64)
            signal[index] += (exact**2).sum()
            noise[index] += ((exact - found[b]) ** 2).sum()
    ratios = [10 * math.log10(s / n) for s, n in zip(signal, noise, strict=True) if s > 0 and n > 0]
    return min(ratios) if ratios else None
