"""Rules that look at the model as a whole: its size, its zeros, and the memory that its weights come from."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

import numpy as np
from onnx import TensorProto, numpy_helper

from edgemill.benchmark.causes_cause import Case, Cause, number, percent, plural
from edgemill.benchmark.causes_graph import GraphView
from edgemill.benchmark.causes_qdq import WEIGHTED

_FIXED = 0.3
"""Share of what does not depend on the computing from which a model counts as too small."""
_ZEROS = 0.3
"""Share of zeros from which weights count as pruned; trained weights have next to none."""
_BEYOND_CACHE = 8 << 20
_BOUND = 0.6
"""Share of the speed of a plain copy from which an operator counts as limited by memory."""


def too_small(case: Case, graph: GraphView | None, claimed: set[int]) -> list[Cause]:
    """The call itself takes a good part of the time, which no quantization shortens."""
    profile = case.profile
    if profile.fixed_us is None or case.slower is False:
        return []
    share = profile.fixed_us / profile.per_inference_us
    if share < _FIXED:
        return []
    text = (
        f"The model is so small that {number(profile.fixed_us)} us of its {number(profile.per_inference_us)} us "
        f"({percent(share)}) go into calling the runtime and starting {plural(len(profile.nodes), 'operator')}, "
        "whatever they compute; faster kernels change little."
    )
    return [
        Cause(
            cause="too_small",
            title="the model is too small for its operators to matter",
            text=text,
            operators=(),
            share_of_time=min(share, 1.0),
            us=profile.fixed_us,
            remedy="Judge this model by its size and memory, or run larger batches per call.",
        )
    ]


def dense_zeros(case: Case, graph: GraphView, claimed: set[int]) -> list[Cause]:
    """A pruned fp32 model: the zeros are multiplied like any other weight."""
    if graph.has_integers or not case.slower:
        return []
    share = zero_share(graph.stored)
    pruned = {index for index in range(len(graph.nodes)) if graph.kind(index) in WEIGHTED} - claimed
    if share < _ZEROS or not pruned:
        return []
    claimed |= pruned
    text = (
        f"{percent(share)} of the weights are zero, but the runtime has no sparse kernels: "
        f"{plural(len(pruned), 'operator')} multiply them all, which takes {number(case.time(pruned))} us. Pruning "
        "single weights shrinks the compressed file only."
    )
    remedy = "Prune whole channels, which leaves smaller dense operators, or quantize the pruned model."
    return [case.cause("dense_zeros", "zeros are computed", text, pruned, remedy)]


def zero_share(tensors: Iterable[TensorProto]) -> float:
    """Share of zeros among the fp32 matrices and kernels of a model file.

    The file is asked, not the optimized graph: there onnxruntime fills channels up with zeros.
    """
    zeros = total = 0
    for tensor in tensors:
        if (
            len(tensor.dims) > 1
            and tensor.data_type == TensorProto.FLOAT
            and tensor.data_location != TensorProto.EXTERNAL
        ):
            values = numpy_helper.to_array(tensor)
            zeros, total = zeros + values.size - int(np.count_nonzero(values)), total + values.size
    return zeros / total if total else 0.0


def same_operators(case: Case) -> Cause | None:
    """The same operators, in the same number, as the baseline."""
    baseline = case.baseline
    if baseline is None or Counter(n.title for n in baseline.nodes) != Counter(n.title for n in case.profile.nodes):
        return None
    text = (
        f"It runs the same {plural(len(baseline.nodes), 'operator')} as the fp32 baseline, of the same types, so it "
        "takes about the same time."
    )
    remedy = "Only fewer or smaller operators, or narrower number types, are faster: distil, prune channels, quantize."
    return case.cause("same_operators", "the same work as the baseline", text, range(len(case.profile.nodes)), remedy)


def memory_bound(case: Case, graph: GraphView, claimed: set[int]) -> list[Cause]:
    """Weights beyond the caches are read about as fast as memory gives them."""
    large = {i for i, node in enumerate(case.profile.nodes) if node.parameter_bytes >= _BEYOND_CACHE and node.us > 0}
    large -= claimed
    if not large or not case.slower:
        return []
    size = sum(case.profile.nodes[index].parameter_bytes for index in large)
    speed, possible = size / case.time(large), copy_speed(size)
    if speed < _BOUND * possible:
        return []
    claimed |= large
    text = (
        f"{plural(len(large), 'operator')} read {size / 1e6:.0f} MB of weights at {speed / 1e3:.1f} GB/s in every "
        f"inference; a plain copy of as much reaches {possible / 1e3:.1f} GB/s here, so memory is the limit."
    )
    remedy = "Store the weights in fewer bits, make the model smaller, or run larger batches per call."
    return [case.cause("memory_bound", "waiting for memory", text, large, remedy)]


def copy_speed(size: int) -> float:
    """Bytes per microsecond that a copy of `size` bytes reads here, best of three."""
    source = np.ones(size // 8, np.float64)
    target = np.empty_like(source)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter_ns()
        np.copyto(target, source)
        best = min(best, (time.perf_counter_ns() - start) / 1e3)
    return source.nbytes / max(best, 1e-3)
