"""Time of every node, from onnxruntime's own profiler, on the graph that onnxruntime made of a file.

The session has the options with which a device loads the file, so it is optimized for this very CPU.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgemill.benchmark.profile_nodes import NodeTime, Profile, typical, without_overhead
from edgemill.errors import ToolchainError
from edgemill.runtimes.onnxruntime import PROVIDER, RUNTIME, OnnxRuntimeModel, session_options

METHOD = (
    "onnxruntime's own profiler on the optimized graph; what it adds to every node is subtracted, so that the nodes "
    "together take no longer than a call without it"
)
_NODE, _KERNEL, _RUN = "Node", "_kernel_time", "model_run"
_EVENTS = 200_000
"""Upper bound of events in one profile: more take seconds to read."""
_RUNS = 100
_BUDGET_S = 1.0


@dataclass(frozen=True)
class OnnxProfile:
    """A profile together with the graph that it is of.

    Attributes:
        profile: time of every node.
        model: the optimized graph; `nodes[i]` is the graph's node of `profile.nodes[i]`.
        nodes: None where a node is not in the main graph.
        stored: the constants of the file as it is.
    """

    profile: Profile
    model: onnx.ModelProto
    nodes: tuple[onnx.NodeProto | None, ...]
    stored: tuple[TensorProto, ...]


def profile_onnx(
    path: Path, x: NDArray[np.float32], threads: int, per_inference_us: float, call_us: float
) -> OnnxProfile:
    """Profile one ONNX file.

    Args:
        path: the file.
        x: float32 (N, ...), the batch of every inference.
        threads: threads of one inference.
        per_inference_us: median of a call without the profiler.
        call_us: what a call costs before the first operator, see `empty_model`.

    Raises:
        ToolchainError: onnxruntime cannot load or run the file, or its profile cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="edgemill-profile-") as folder:
        optimized = Path(folder) / "optimized.onnx"
        options = session_options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        options.optimized_model_filepath = str(optimized)
        model = OnnxRuntimeModel(path, options)
        call = model.prepare(x)
        try:
            for _ in range(_runs(per_inference_us, optimized)):
                call()
            file = model.session.end_profiling()
            events = json.loads(Path(file).read_text(encoding="utf-8"))
            graph = onnx.load(str(optimized))
            stored = tuple(onnx.load(str(path), load_external_data=False).graph.initializer)
        except Exception as error:  # onnxruntime's and protobuf's exceptions have no common base
            raise ToolchainError(
                "The profile of onnxruntime cannot be read.", where=path.name, got=f"{type(error).__name__}: {error}"
            ) from error
    timed = read_events(events, path.name)
    nodes, overhead = without_overhead(timed, per_inference_us - call_us)
    matched = match(nodes, graph.graph.node)
    nodes = tuple(
        replace(node, domain=found.domain.removeprefix("ai.onnx")) if found is not None else node
        for node, found in zip(nodes, matched, strict=True)
    )
    profile = Profile(
        runtime=f"{RUNTIME.name} {RUNTIME.version()}",
        method=METHOD,
        asked=PROVIDER,
        nodes=nodes,
        per_inference_us=per_inference_us,
        fixed_us=None,
        overhead_us=overhead,
    )
    return OnnxProfile(profile, graph, matched, stored)


def read_events(events: Any, where: str) -> list[NodeTime]:
    """Mean time of every node from the events of onnxruntime's profile.

    Time of nodes inside a node's subgraph (If, Loop) counts for them and not for it.

    Args:
        events: the parsed JSON file.
        where: named in the error.

    Raises:
        ToolchainError: the events are not what onnxruntime writes.
    """
    try:
        starts = sorted(float(event["ts"]) for event in events if event.get("name") == _RUN)
        kernels = [event for event in events if event.get("cat") == _NODE and event["name"].endswith(_KERNEL)]
        if not starts:
            raise ValueError("no inference in it")
        # The first inference also allocates and fills caches.
        skipped = 1 if len(starts) > 1 else 0
        first: dict[tuple[str, str, str], dict[str, Any]] = {}
        times: list[dict[tuple[str, str, str], float]] = [{} for _ in starts]
        for event, own in _own_times(kernels):
            details = event["args"]
            name = event["name"].removesuffix(_KERNEL)
            key = (name, str(details["op_name"]), str(details.get("node_index", "")))
            first.setdefault(key, details | {"ts": float(event["ts"])})
            run = int(np.searchsorted(starts, float(event["ts"]), side="right")) - 1
            if run >= 0:
                times[run][key] = times[run].get(key, 0.0) + own
        keys = sorted(first, key=lambda key: first[key]["ts"])
        table = np.array([[run.get(key, 0.0) for key in keys] for run in times[skipped:]], np.float64)
        means = typical(table.reshape(len(times) - skipped, len(keys)))
        return [
            NodeTime(
                name=key[0],
                operator=key[1],
                provider=str(first[key].get("provider") or "unknown"),
                us=float(us),
                parameter_bytes=int(first[key].get("parameter_size") or 0),
            )
            for key, us in zip(keys, means, strict=True)
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ToolchainError(
            "The profile of onnxruntime cannot be read.",
            where=where,
            expected="events with name, cat, ts, dur and args.op_name",
            got=f"{type(error).__name__}: {error}",
        ) from error


def match(timed: Sequence[NodeTime], graph: Sequence[onnx.NodeProto]) -> tuple[onnx.NodeProto | None, ...]:
    """The graph's node of every profiled node: by name, without a name by the order of its operator type."""
    waiting: dict[tuple[str, str], list[onnx.NodeProto]] = {}
    for node in graph:
        waiting.setdefault((node.name, node.op_type), []).append(node)
    found = []
    for entry in timed:
        candidates = waiting.get((entry.name, entry.operator)) or waiting.get(("", entry.operator))
        found.append(candidates.pop(0) if candidates else None)
    return tuple(found)


def empty_model(x: NDArray[np.float32], path: Path, nodes: int = 0) -> Path:
    """Write a model that computes next to nothing: what it takes is the call, and the running of operators.

    Args:
        x: an input like that of the model it stands for.
        path: where to write it.
        nodes: operators after the first, which takes one number out of the input.
    """
    names = [f"y{index}" for index in range(nodes + 1)]
    chain = [helper.make_node("Shape", ["x"], names[:1], start=0, end=1)]
    chain += [helper.make_node("Neg", [before], [after]) for before, after in pairwise(names)]
    graph = helper.make_graph(
        chain,
        "empty",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None] * x.ndim)],
        [helper.make_tensor_value_info(names[-1], TensorProto.INT64, [1])],
    )
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8), str(path))
    return path


def _runs(per_inference_us: float, optimized: Path) -> int:
    nodes = max(1, len(onnx.load(str(optimized), load_external_data=False).graph.node))
    return max(3, min(_RUNS, _EVENTS // nodes, int(_BUDGET_S * 1e6 / max(per_inference_us, 1.0))))


def _own_times(events: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], float]]:
    """Every event with its duration less that of the events directly inside it, on the same thread."""
    order = sorted(events, key=lambda event: (event.get("tid", 0), float(event["ts"]), -float(event["dur"])))
    own = [float(event["dur"]) for event in order]
    open_: list[int] = []
    for index, event in enumerate(order):
        start, end = float(event["ts"]), float(event["ts"]) + float(event["dur"])
        while open_ and not _inside(order[open_[-1]], event, start, end):
            open_.pop()
        if open_:
            own[open_[-1]] -= float(event["dur"])
        open_.append(index)
    return ((event, max(0.0, time)) for event, time in zip(order, own, strict=True))


def _inside(outer: dict[str, Any], event: dict[str, Any], start: float, end: float) -> bool:
    begin = float(outer["ts"])
    # Only nodes with subgraphs contain others; stamps are whole microseconds, so neighbours may touch.
    holds = str(outer["args"].get("op_name")) in {"If", "Loop", "Scan"}
    return holds and outer.get("tid") == event.get("tid") and begin <= start and end <= begin + float(outer["dur"])
