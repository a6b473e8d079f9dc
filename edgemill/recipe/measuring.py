"""How latency, memory and energy are measured."""

from __future__ import annotations

from pydantic import Field

from edgemill.recipe.section import Section


class Sustained(Section):
    """A long run that shows heat, throttling and energy."""

    minutes: float = Field(3.0, gt=0, le=240, description="how long; 30 shows what a passively cooled board keeps up")


class Benchmark(Section):
    """How latency is measured."""

    threads: int = Field(1, gt=0, description="threads of the runtime")
    batch: int = Field(1, gt=0, description="samples per inference; what variants are compared at")
    batches: tuple[int, ...] = Field((), description="further batch sizes to report, where the model takes them")
    rounds: int = Field(30, ge=5, description="interleaved blocks of variant and baseline, at least")
    runs_per_round: int = Field(20, ge=1, description="inferences per block")
    precision: float = Field(
        0.02,
        gt=0,
        lt=1,
        description="go on until the interval of the ratio reaches no further than this share of it to "
        "each side (1 % for lasting other load is then added)",
    )
    time_budget_s: float = Field(20.0, gt=0, description="stop then, however wide the interval")
    sustained: Sustained | None = Field(None, description="long run of what was selected; left out: not done")
