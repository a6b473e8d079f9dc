"""The Keras 3 bridge: a Keras 3 model rebuilt in Keras 2, layer by layer, with its weights.

tfmot and the LiteRT converter's quantization-aware path only take Keras 2. Nested models are
flattened into one, because tfmot does not look into them either. Nothing is taken on trust:
`compare` runs both versions of every layer on the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.ingest.bridge_layers import CannotBridgeError, Twin, translate
from edgemill.ingest.bridge_ops import translate_operation
from edgemill.ingest.compare import difference
from edgemill.ingest.loaded import Unbridged
from edgemill.tf import keras, tf


@dataclass
class Bridge:
    """A finished or failed rebuild.

    Attributes:
        model: the Keras 2 model, None where something could not be bridged.
        unbridged: every layer that could not be, with the reason.
        twins: the counterpart of every Keras 3 operation, by its id.
    """

    model: Any = None
    unbridged: list[Unbridged] = field(default_factory=list)
    twins: dict[int, Twin] = field(default_factory=dict)


def bridge(original: Any) -> Bridge:
    """Rebuild a Keras 3 model in Keras 2.

    Args:
        original: built Keras 3 model with one input.
    """
    graph = graph_of(original)
    if graph is None:
        reason = "a subclassed model: its graph is Python code, not data"
        return Bridge(unbridged=[Unbridged(layer=original.name, kind=type(original).__name__, reason=reason)])
    walk = _Walk()
    source = graph.inputs[0]
    symbol = keras.Input(tuple(source.shape[1:]), dtype=_dtype(source), name=_clean(source.name))
    walk.names.add(symbol.name)
    outputs = walk.run(graph, [symbol], "")
    if walk.found:
        return Bridge(unbridged=walk.found)
    return Bridge(keras.Model(symbol, outputs, name=original.name), [], walk.twins)


def graph_of(model: Any) -> Any:
    """The graph of a functional or sequential Keras 3 model, None for any other."""
    if hasattr(model, "_functional"):  # a sequential model
        return model._functional
    return model if hasattr(model, "_nodes_by_depth") else None


class _Walk:
    """One replay of a Keras 3 graph with Keras 2 layers."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.twins: dict[int, Twin] = {}
        self.found: list[Unbridged] = []

    def run(self, graph: Any, inputs: list[Any], prefix: str) -> Any:
        return replay(graph, inputs, lambda operation: lambda *a, **k: self._apply(operation, a, k, prefix))

    def _apply(self, operation: Any, args: Any, kwargs: dict[str, Any], prefix: str) -> Any:
        kwargs = {key: value for key, value in kwargs.items() if key != "training"}
        inner = graph_of(operation)
        if inner is not None:
            return self.run(inner, _flatten(args), f"{prefix}{operation.name}_")
        try:
            if id(operation) not in self.twins:
                self.twins[id(operation)] = _twin(operation, self._name(prefix, operation.name))
            return self.twins[id(operation)](*args, **kwargs)
        except CannotBridgeError as error:
            return self._give_up(operation, str(error), prefix)
        except Exception as error:  # noqa: BLE001  (Keras 2 raises anything on settings it does not support)
            return self._give_up(operation, f"{type(error).__name__}: {error}"[:300], prefix)

    def _give_up(self, operation: Any, reason: str, prefix: str) -> Any:
        """Note the layer, and go on behind it with a stand-in, to find all the others too."""
        entry = Unbridged(layer=f"{prefix}{operation.name}", kind=type(operation).__name__, reason=reason)
        if entry not in self.found:
            self.found.append(entry)
        shapes = [tensor.shape for node in operation._inbound_nodes[:1] for tensor in node.output_tensors]
        stand_ins = [keras.Input(tuple(shape[1:])) for shape in shapes]
        return stand_ins[0] if len(stand_ins) == 1 else stand_ins

    def _name(self, prefix: str, name: str) -> str:
        clean = _clean(name)
        candidate = clean if clean not in self.names else _clean(f"{prefix}{name}")
        number = 1
        while candidate in self.names:
            candidate = f"{clean}_{number}"
            number += 1
        self.names.add(candidate)
        return candidate


def _twin(operation: Any, name: str) -> Twin:
    if hasattr(operation, "weights"):
        return translate(operation, name)
    return translate_operation(operation, name)


def replay(graph: Any, inputs: list[Any], of: Any) -> Any:
    """Run a Keras 3 graph with other operations in the place of its own.

    Args:
        graph: from `graph_of`.
        inputs: what takes the place of its input tensors.
        of: gives for each operation the function to call instead.
    """
    return graph._run_through_graph(inputs, operation_fn=of)


def compare(original: Any, made: Bridge, x: NDArray[np.float32], tolerance: float) -> list[Unbridged]:
    """Layers whose Keras 2 counterpart answers differently to the same numbers.

    Every layer gets what the layers before it answered in the original, so that one wrong layer does
    not make those behind it look wrong.

    Args:
        original: Keras 3 model.
        made: its finished rebuild.
        x: float32 (N, *sample_shape).
        tolerance: largest difference relative to the range of the layer's answers.
    """
    found: list[Unbridged] = []

    def run(graph: Any, inputs: list[Any], prefix: str) -> Any:
        return replay(graph, inputs, lambda operation: lambda *a, **k: apply(operation, a, k, prefix))

    def apply(operation: Any, args: Any, kwargs: dict[str, Any], prefix: str) -> Any:
        inner = graph_of(operation)
        if inner is not None:
            return run(inner, _flatten(args), f"{prefix}{operation.name}_")
        kwargs = {key: value for key, value in kwargs.items() if key != "training"}
        # Augmentation layers act by default.
        mode = {"training": False} if getattr(operation, "_call_has_training_arg", False) else {}
        answer = operation(*args, **kwargs, **mode)
        other = made.twins[id(operation)](*args, **kwargs)
        for mine, theirs in zip(_flatten(answer), _flatten(other), strict=True):
            gap = difference(np.asarray(mine, np.float32), np.asarray(theirs, np.float32))
            if not gap.relative <= tolerance:
                reason = f"Keras 2 answers differently: {gap.relative:.3g} of the output range"
                name = f"{prefix}{operation.name}"
                found.append(Unbridged(layer=name, kind=type(operation).__name__, reason=reason))
        return answer

    graph = graph_of(original)
    run(graph, [tf.cast(x, graph.inputs[0].dtype)], "")
    return found


def _flatten(value: Any) -> list[Any]:
    return [item for item in tf.nest.flatten(value) if item is not None]


def _dtype(tensor: Any) -> str:
    name = str(tensor.dtype)
    return "float32" if name in ("float16", "bfloat16") else name


def _clean(name: str) -> str:
    return "".join(c if c.isalnum() or c in "_.-" else "_" for c in name)
