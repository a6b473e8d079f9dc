"""The activations of an fp32 ONNX graph: which there are, how large, and their values on samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

from edgemill.errors import ToolchainError
from edgemill.runtimes.onnxruntime import PROVIDER, session_options

# Bytes of a value.
_FLOATS = {TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2}
_SHAPE = ".edgemill_shape"


class Activations:
    """An ONNX graph whose tensors can be looked into.

    Attributes:
        entry: name of the graph's input.
        names: floating-point tensors that go into or come out of a node and are no weights, the ones that
            onnxruntime's quantizer asks a range for; in the order of the graph, the input first.
        model_bytes: size of the graph with its weights.
    """

    def __init__(self, path: Path) -> None:
        """Load an fp32 ONNX file with one input, batch first."""
        self._model = load_model_with_shape_infer(path)
        graph = self._model.graph
        self.entry: str = graph.input[0].name
        self.model_bytes: int = self._model.ByteSize()
        self._outputs = deepcopy(list(graph.output))
        known = {value.name: value for value in (*graph.value_info, *graph.output, *graph.input)}
        weights = {tensor.name for tensor in graph.initializer}
        touched = dict.fromkeys(name for node in graph.node for name in (*node.input, *node.output))
        self._values = {
            name: deepcopy(known[name])
            for name in touched
            if name in known and name not in weights and known[name].type.tensor_type.elem_type in _FLOATS
        }
        self.names: tuple[str, ...] = tuple(sorted(self._values, key=lambda name: name != self.entry))

    def sample_bytes(self, x: NDArray[np.float32]) -> dict[str, int]:
        """Size of every tensor for one sample, by running one.

        Only the shapes leave the graph, so that a graph too large to hold all its tensors is measured, too.

        Args:
            x: one sample, float32 (1, ...).
        """
        outputs = [name + _SHAPE for name in self.names]
        nodes = [helper.make_node("Shape", [name], [output]) for name, output in zip(self.names, outputs, strict=True)]
        values = [helper.make_tensor_value_info(output, TensorProto.INT64, None) for output in outputs]
        shapes = _run(self._session(values, nodes), outputs, self.entry, x)
        kinds = [self._values[name].type.tensor_type.elem_type for name in self.names]
        return {
            name: int(np.prod(shape)) * _FLOATS[kind]
            for name, kind, shape in zip(self.names, kinds, shapes, strict=True)
        }

    def values(
        self, names: Sequence[str], batches: Iterable[NDArray[np.float32]]
    ) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
        """Values of some tensors, batch by batch.

        Args:
            names: of `self.names`.
            batches: inputs, float32 (N, ...) each.

        Yields:
            number of samples of the batch, and the tensors by name; the caller may empty the mapping to free them.

        Raises:
            ToolchainError: onnxruntime cannot run the graph.
        """
        wanted = [name for name in names if name != self.entry]
        session = self._session([self._values[name] for name in wanted] or self._outputs)
        for x in batches:
            held = dict(zip(wanted, _run(session, wanted, self.entry, x), strict=True)) if wanted else {}
            if self.entry in names:
                held[self.entry] = x
            yield len(x), held
            # The next batch is computed when nothing of this one is left.
            held.clear()

    def _session(
        self, outputs: Sequence[onnx.ValueInfoProto], nodes: Sequence[onnx.NodeProto] = ()
    ) -> onnxruntime.InferenceSession:
        options = session_options(1)
        # Fusing would round differently with every choice of outputs.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # The weights may be large: the graph is changed for a moment instead of copied.
        graph, length = self._model.graph, len(self._model.graph.node)
        del graph.output[:]
        graph.output.extend(outputs)
        graph.node.extend(nodes)
        try:
            return onnxruntime.InferenceSession(self._model.SerializeToString(), options, providers=[PROVIDER])
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise ToolchainError(
                "onnxruntime cannot load the graph with its activations as outputs.",
                where="calibration",
                got=str(error)[:2000],
            ) from error
        finally:
            del graph.output[:], graph.node[length:]
            graph.output.extend(self._outputs)


def _run(
    session: onnxruntime.InferenceSession, names: list[str], entry: str, x: NDArray[np.float32]
) -> list[NDArray[Any]]:
    try:
        return list(session.run(names, {entry: x}))
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise ToolchainError(
            "onnxruntime failed to run the graph on calibration samples.", where="calibration", got=str(error)[:2000]
        ) from error
