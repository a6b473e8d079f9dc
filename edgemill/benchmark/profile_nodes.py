"""What a profile is: the time of every node that a runtime ran, and the same summed over operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgemill.artifact import Frozen

_KEPT = 0.8
"""Share of the fastest runs of which a node's mean is taken: what interrupted the others is not the model's."""


class OperatorTime(Frozen):
    """All nodes of one operator in the graph that the runtime really ran."""

    operator: str = Field(description="operator type; with its domain where that is not ONNX's own")
    provider: str = Field(description="execution provider or delegate that ran it")
    count: int = Field(description="nodes")
    us: float = Field(description="microseconds of one inference, without what the profiler itself costs")
    share: float = Field(description="of the time of all nodes, 0 to 1")


@dataclass(frozen=True)
class NodeTime:
    """One node of the graph that ran.

    Attributes:
        name: as the runtime reports it.
        operator: operator type, e.g. QLinearConv, or the name of a delegate's kernel.
        provider: execution provider or delegate.
        us: microseconds of one inference.
        parameter_bytes: size of its constant inputs, 0 where the runtime does not tell.
        domain: operator set, empty for ONNX's own.
    """

    name: str
    operator: str
    provider: str
    us: float
    parameter_bytes: int = 0
    domain: str = ""

    @property
    def title(self) -> str:
        """Operator type with its domain."""
        return f"{self.domain}.{self.operator}" if self.domain else self.operator


@dataclass(frozen=True)
class Profile:
    """One model file on its runtime.

    Attributes:
        runtime: name and version.
        method: how the times were taken, in one sentence.
        asked: provider or delegate that was asked for.
        nodes: in order of execution.
        per_inference_us: median of a call without the profiler.
        fixed_us: what a call costs that runs as many operators but computes nothing; None where it is not known.
        overhead_us: what the profiler added to every node, already subtracted.
    """

    runtime: str
    method: str
    asked: str
    nodes: tuple[NodeTime, ...]
    per_inference_us: float
    fixed_us: float | None
    overhead_us: float

    @property
    def total_us(self) -> float:
        """Microseconds of all nodes in one inference."""
        return sum(node.us for node in self.nodes)

    def share(self, us: float) -> float:
        """A time as a share of the time of all nodes; 0 when nothing was timed."""
        return us / self.total_us if self.total_us > 0 else 0.0


def typical(runs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of the fastest runs of each node.

    Args:
        runs: microseconds (runs, nodes), at least one run.

    Returns:
        microseconds (nodes,).
    """
    kept = max(1, int(np.ceil(len(runs) * _KEPT)))
    means: NDArray[np.float64] = np.sort(runs, axis=0)[:kept].mean(axis=0)
    return means


def without_overhead(nodes: Sequence[NodeTime], computing_us: float) -> tuple[tuple[NodeTime, ...], float]:
    """Subtract from every node what the profiler cost.

    The profiler stamps every node alike, so what the nodes together take longer than without it
    is shared out evenly; never more than the cheapest node took.

    Args:
        nodes: as profiled.
        computing_us: microseconds that they may take together: a call without the profiler, less what
            the call itself costs.

    Returns:
        the nodes, and the microseconds subtracted from each.
    """
    if not nodes:
        return (), 0.0
    excess = (sum(node.us for node in nodes) - computing_us) / len(nodes)
    overhead = max(0.0, min(excess, *(node.us for node in nodes)))
    return tuple(replace(node, us=node.us - overhead) for node in nodes), overhead


def by_operator(profile: Profile, limit: int | None = None) -> tuple[OperatorTime, ...]:
    """The nodes summed by operator and provider, the most expensive first."""
    groups: dict[tuple[str, str], list[float]] = {}
    for node in profile.nodes:
        groups.setdefault((node.title, node.provider), []).append(node.us)
    rows = [
        OperatorTime(
            operator=operator, provider=provider, count=len(times), us=sum(times), share=profile.share(sum(times))
        )
        for (operator, provider), times in groups.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.us, row.operator))[:limit])
