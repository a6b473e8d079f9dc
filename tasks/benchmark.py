"""Stage: measure a compiled file against the fp32 checkpoint, alone on the machine."""

from __future__ import annotations

from edgemill.artifact import Artifact
from edgemill.benchmark import (
    BENCHMARK,
    CAUSES,
    FIGURES,
    SUSTAINED,
    BenchmarkSettings,
    CausesSettings,
    FiguresSettings,
    SustainedSettings,
)
from edgemill.benchmark.host import fingerprint_digest
from edgemill.evidence import DeviceFigures
from edgemill.execute import Call
from edgemill.recipe import Recipe, Sustained
from edgemill.store import StepRecord
from edgemill.targets import Target
from tasks.run import perform


def benchmark(
    variant: Artifact, baseline: Artifact, target: Target, recipe: Recipe, data: Artifact, subject: str
) -> StepRecord:
    """Interleaved runs of variant and baseline, in the environment of the target's runtime."""
    call = Call(
        BENCHMARK,
        BenchmarkSettings(benchmark=recipe.benchmark, target=target.essence.model_copy(update={"power": target.power})),
        {"variant": variant, "baseline": baseline, "data": data},
        seed=recipe.seed,
        extra={"host": fingerprint_digest()},
        toolchain=target.execution.toolchain,
    )
    return perform(call, subject)


def figures(variant: Artifact, baseline: Artifact, device: DeviceFigures, subject: str) -> StepRecord:
    """Sizes, and what the device's own tools say, where no time can be taken here."""
    return perform(Call(FIGURES, FiguresSettings(device=device), {"variant": variant, "baseline": baseline}), subject)


def explain(variant: Artifact, baseline: Artifact, recipe: Recipe, data: Artifact, subject: str) -> StepRecord:
    """Why a variant is not faster, from the runtime's own profile."""
    call = Call(
        CAUSES,
        CausesSettings(threads=recipe.benchmark.threads, batch=recipe.benchmark.batch),
        {"variant": variant, "baseline": baseline, "data": data},
        seed=recipe.seed,
        extra={"host": fingerprint_digest()},
    )
    return perform(call, subject)


def sustain(
    variant: Artifact, rule: Sustained, target: Target, recipe: Recipe, data: Artifact, subject: str
) -> StepRecord:
    """A long run: heat, throttling and energy."""
    call = Call(
        SUSTAINED,
        SustainedSettings(
            minutes=rule.minutes, threads=recipe.benchmark.threads, batch=recipe.benchmark.batch, target=target
        ),
        {"variant": variant, "data": data},
        seed=recipe.seed,
        extra={"host": fingerprint_digest()},
        toolchain=target.execution.toolchain,
    )
    return perform(call, subject)
