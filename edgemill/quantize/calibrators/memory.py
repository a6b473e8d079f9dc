"""How a calibration is cut into pieces, so that it stays within a given memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# The graph is held as a message, serialized for onnxruntime, as onnxruntime's message, and as the session's weights.
_MODEL_COPIES = 4
# Preprocessing makes new arrays: the stored samples as float32, and one for every operation of which two overlap.
_INPUT_COPIES = 3
# What onnxruntime's allocator rounds up, as the divisor of what it is asked for; measured on four graphs.
_ROUNDED_UP = 16
# onnxruntime's code and a session without weights, measured 15 MiB; pieces of an update, blocks of a search.
_FIXED_BYTES = 16 << 20


@dataclass(frozen=True)
class Plan:
    """How the calibration samples go through the graph.

    Attributes:
        groups: tensors observed in each pass over the samples.
        batch_size: samples per inference.
        estimate_bytes: memory that calibration will take beyond that of the process; independent of the
            number of samples.
        budget_bytes: memory that it was to stay within.
    """

    groups: tuple[tuple[str, ...], ...]
    batch_size: int
    estimate_bytes: int
    budget_bytes: int

    @property
    def fits(self) -> bool:
        """Whether the estimate is within the budget."""
        return self.estimate_bytes <= self.budget_bytes

    def record(self) -> dict[str, Any]:
        """JSON value for the facts of a step."""
        return {
            "tensors": sum(len(group) for group in self.groups),
            "passes": len(self.groups),
            "batch_size": self.batch_size,
            "estimate_bytes": self.estimate_bytes,
            "budget_bytes": self.budget_bytes,
        }


def estimate_bytes(sizes: Mapping[str, int], observed: int, batch_size: int, model_bytes: int, state_bytes: int) -> int:
    """Memory of a calibration.

    Args:
        sizes: bytes of every tensor for one sample; the graph's input first.
        observed: bytes of the tensors observed in one pass, for one sample.
        batch_size: samples per inference.
        model_bytes: size of the graph with its weights.
        state_bytes: size of all accumulators.

    Returns:
        bytes: the observed tensors of a batch, those the graph needs at one time besides (its two
        largest, where not all are observed), inputs, graph, accumulators, and a constant.
    """
    entry = next(iter(sizes.values()), 0)
    besides = 0 if observed >= sum(sizes.values()) else sum(sorted(sizes.values())[-2:])
    batch = batch_size * (observed + besides + _INPUT_COPIES * entry)
    return batch + batch // _ROUNDED_UP + _MODEL_COPIES * model_bytes + state_bytes + _FIXED_BYTES


def plan(sizes: Mapping[str, int], most: int, model_bytes: int, state_bytes_each: int, budget_bytes: int) -> Plan:
    """Largest batch, of those got by halving, with which the calibration stays within a budget.

    One pass over all tensors is preferred, with a smaller batch if need be. Where not even single samples
    fit, tensors are observed in groups, one pass over the samples each, which computes the graph
    as often. What does not fit even so, one tensor of one sample, is planned all the same.

    Args:
        sizes: bytes of every tensor for one sample, in the order of the graph; its input first.
        most: largest batch size wanted.
        model_bytes: size of the graph with its weights.
        state_bytes_each: size of the accumulator of one tensor.
        budget_bytes: memory to stay within.
    """
    state = state_bytes_each * len(sizes)
    whole = sum(sizes.values())

    def need(observed: int, batch_size: int) -> int:
        return estimate_bytes(sizes, observed, batch_size, model_bytes, state)

    batch_size = most
    while batch_size and need(whole, batch_size) > budget_bytes:
        batch_size //= 2
    if batch_size:
        return Plan((tuple(sizes),), batch_size, need(whole, batch_size), budget_bytes)
    groups: list[list[str]] = []
    filled = 0
    for name, size in sizes.items():
        if not groups or need(filled + size, 1) > budget_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    largest = max(sum(sizes[name] for name in group) for group in groups)
    return Plan(tuple(map(tuple, groups)), 1, need(largest, 1), budget_bytes)
