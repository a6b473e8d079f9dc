"""A summary with every kind of outcome, made of figures once measured on Fashion-MNIST."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from edgemill.artifact import digest_text
from edgemill.evidence import Arithmetic, SlowCause, Span, SustainedRun
from edgemill.recipe import Budget, Task
from edgemill.summary import (
    Baseline,
    ChainStep,
    CheckpointFacts,
    DataFacts,
    Interval,
    Profile,
    Status,
    Summary,
    TargetResult,
    VariantResult,
)
from edgemill.validate.decide import failed
from edgemill.validate.paired_proportions import compare_binary
from edgemill.validate.verdict import Bound, Decision, Verdict

BUDGET = Budget(max_accuracy_drop=0.005, confidence=0.95)
START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
BASELINE_ACCURACY = 0.9283


def verdict_of(lost: int, won: int, n: int = 10_000) -> Verdict:
    baseline, variant = np.ones(n), np.ones(n)
    variant[:lost] = 0
    baseline[lost : lost + won] = 0
    return compare_binary(baseline, variant, BUDGET)


def profile_of(size: int, packed: int, p50: float, ratio: float | None, source: str = "measured:native") -> Profile:
    return Profile(
        size_bytes=size,
        compressed_bytes=packed,
        source=source,
        latency_p50_ms=p50,
        latency_p95_ms=1.12 * p50,
        latency_ratio=Interval(estimate=ratio, lower=0.985 * ratio, upper=1.02 * ratio) if ratio else None,
        peak_rss_bytes=40_000_000 + 3 * size,
    )


def variant_of(target: str, name: str, status: Status, profile: Profile | None, score: float | None, **more: object):
    verdict = more.get("verdict")
    accuracy = (
        BASELINE_ACCURACY - verdict.estimate if isinstance(verdict, Verdict) and verdict.estimate is not None else None
    )
    return VariantResult.model_validate(
        {
            "target": target,
            "candidate": name,
            "scheme": name.rsplit("-", 1)[-1],
            "digest": digest_text(target + name) if profile else None,
            "kind": "onnx" if profile else None,
            "profile": profile,
            "validation_score": score,
            "status": status,
            "accuracy": accuracy,
        }
        | more
    )


def chain_of(target: str, name: str, p50: float) -> tuple[ChainStep, ...]:
    return (
        ChainStep(
            stage="distill",
            step="distill.train",
            title="distill, width 0.5",
            digest=digest_text("student"),
            score=0.9404,
            size_bytes=690_000,
            compressed_bytes=640_113,
            latency_p50_ms=0.0811,
        ),
        ChainStep(
            stage="quantize",
            step="quantize.static",
            title="int8, ranges from 300 calibration samples",
            digest=digest_text("quantized"),
            score=0.9396,
            size_bytes=195_300,
            compressed_bytes=170_992,
        ),
        ChainStep(
            stage="compile",
            step="compile.onnxruntime",
            title="onnxruntime, portable optimizations",
            digest=digest_text(target + name),
            score=0.9396,
            size_bytes=192_432,
            compressed_bytes=166_585,
            latency_p50_ms=p50,
        ),
    )


def full_target(name: str, title: str, source: str) -> TargetResult:
    variants = (
        variant_of(
            name,
            "prune-int8_static",
            Status.DROPPED,
            profile_of(703_112, 236_091, 0.0622, 0.297, source),
            0.9298,
            reason="on validation data the drop is above 0.0091 at 0.95 confidence, beyond the margin of 0.005",
        ),
        variant_of(
            name,
            "int8_static",
            Status.PASSED,
            profile_of(722_845, 651_508, 0.0893, 0.426, source),
            0.9421,
            verdict=verdict_of(31, 35),
            lost=31,
            won=35,
            flip_rate=0.0071,
        ),
        variant_of(
            name,
            "distill-int8_static",
            Status.SELECTED,
            profile_of(192_432, 166_585, 0.0215, 0.103, source),
            0.9396,
            verdict=verdict_of(110, 93),
            lost=110,
            won=93,
            flip_rate=0.0231,
            chain=chain_of(name, "distill-int8_static", 0.0215),
        ),
        variant_of(
            name,
            "int8_qat",
            Status.PASSED,
            profile_of(721_057, 649_329, 0.0871, 0.415, source),
            0.9417,
            verdict=verdict_of(29, 33),
            lost=29,
            won=33,
            flip_rate=0.0069,
        ),
        variant_of(
            name,
            "distill-prune-int8_static",
            Status.INCONCLUSIVE,
            profile_of(137_328, 62_443, 0.0212, 0.101, source),
            0.9372,
            verdict=verdict_of(171, 129),
            lost=171,
            won=129,
            flip_rate=0.034,
            reason=verdict_of(171, 129).reason,
        ),
        variant_of(
            name,
            "distill-cluster-int8_static",
            Status.FAILED,
            profile_of(109_746, 58_300, 0.0213, 0.1021, source),
            0.93,
            verdict=verdict_of(333, 129),
            lost=333,
            won=129,
            flip_rate=0.051,
            reason=verdict_of(333, 129).reason,
        ),
        variant_of(
            name,
            "int8_dynamic",
            Status.DROPPED,
            profile_of(705_549, 594_806, 1.32, 6.28, source),
            0.9419,
            reason="int8_static is as fast, as small and as accurate on validation data",
        ),
        variant_of(
            name,
            "fp16",
            Status.FAILED,
            None,
            None,
            reason="conversion failed: 3 nodes of type Resize have no float16 kernel",
        ),
    )
    return TargetResult(
        target=name,
        title=title,
        source=source,
        baseline=Baseline(
            digest=digest_text("baseline" + name),
            profile=profile_of(2_729_050, 2_529_685, 0.210, None, source),
            validation_score=0.9414,
            accuracy=BASELINE_ACCURACY,
        ),
        variants=tuple(with_evidence(variant, source) for variant in variants),
        sustained=SUSTAINED if source == "measured:native" else None,
        bundle=f"bundles/{name}",
    )


def with_evidence(variant: VariantResult, source: str) -> VariantResult:
    """The variant with further checks, the arithmetic of its answers, and the cause where it is slow."""
    native = source == "measured:native"
    found: dict[str, object] = {"arithmetic": Arithmetic(source="measured:native") if native else EMULATED}
    if variant.candidate == "int8_dynamic":
        found["slow_because"] = (CONV_INTEGER,)
    if variant.candidate == "distill-int8_static":
        assert variant.verdict is not None
        found["checks"] = (variant.verdict, FLIPS, FIDELITY)
    return variant.model_copy(update=found)


EMULATED = Arithmetic(
    source="emulated:qemu-aarch64",
    note="this machine is x86_64, the target aarch64",
    compared=256,
    bit_equal=0.984375,
    agreement=0.99609375,
    max_difference=1.92,
    first_layer="QLinearConv stem",
    cures=("as_it_is: parted from QLinearConv on, off by up to 1.92", "reduce_range: equal, kept"),
)
CONV_INTEGER = SlowCause(
    cause="conv_integer",
    title="convolutions quantized at run time",
    text="10 ConvInteger nodes take 97 % of the time: 1,340 of 1,380 us.",
    remedy="quantize statically: int8_static",
    share_of_time=0.97,
)
FLIPS = Verdict(
    gate="flips",
    verdict=Decision.PASS,
    estimate=0.0231,
    lower=0.0207,
    upper=0.0257,
    margin=0.03,
    unit="points",
    confidence=0.95,
    n=10_000,
    method="proportion, exact (Clopper and Pearson 1934)",
    reason="the rate is below 2.57 points at 95 % confidence, within the margin of 3 points",
)
FIDELITY = Verdict(
    gate="fidelity_sqnr",
    verdict=Decision.INCONCLUSIVE,
    estimate=20.4,
    lower=19.8,
    upper=21.1,
    margin=20.0,
    bound=Bound.ABOVE,
    unit="dB",
    confidence=0.95,
    n=10_000,
    method="percentile bootstrap",
    reason="the ratio may lie from 19.8 to 21.1 dB, the floor is 20 dB",
)
SUSTAINED = SustainedRun(
    minutes=3.0,
    source="measured:native",
    first_minute=Span(from_s=0, to_s=60, p50_ms=0.0215, p95_ms=0.0241, temperature_c=51.5),
    steady_state=Span(from_s=120, to_s=180, p50_ms=0.0262, p95_ms=0.0303, temperature_c=84.0),
    throttle_onset_s=74.0,
    throttle_evidence=("temperature rises", "clock falls"),
    sensors_missing={"energy": "no meter"},
    series=digest_text("series"),
    columns={
        "start_s": tuple(float(second) for second in range(0, 180, 6)),
        "length_s": (1.0,) * 30,
        "p50_ms": tuple(0.0215 if second < 74 else 0.0262 for second in range(0, 180, 6)),
        "p95_ms": tuple(0.0241 if second < 74 else 0.0303 for second in range(0, 180, 6)),
        "temperature_c": tuple(min(84.0, 50 + second / 2) for second in range(0, 180, 6)),
        "mhz": tuple(2400.0 if second < 74 else 1800.0 for second in range(0, 180, 6)),
        "joules": (None,) * 30,
        "taken": (0.0,) * 30,
    },
)


def failing_target() -> TargetResult:
    name = "android-arm64"
    return TargetResult(
        target=name,
        title="Android phone, LiteRT with XNNPACK",
        source="proxy:x86_64-host",
        baseline=Baseline(
            digest=digest_text("baseline" + name),
            profile=profile_of(2_735_000, 2_530_100, 0.218, None, "proxy:x86_64-host"),
            validation_score=0.9414,
            accuracy=BASELINE_ACCURACY,
        ),
        variants=(
            variant_of(
                name,
                "int8_static",
                Status.FAILED,
                profile_of(717_560, 649_235, 0.062, 0.293, "proxy:x86_64-host"),
                0.1,
                verdict=failed(
                    BUDGET, 10_000, "constant: class 3 for all 10000 samples, the baseline gives 10 classes"
                ),
                reason="constant: class 3 for all 10000 samples, the baseline gives 10 classes",
            ),
        ),
    )


@pytest.fixture
def summary() -> Summary:
    return Summary(
        name="fashion",
        task=Task.CLASSIFICATION,
        recipe_digest=digest_text("recipe"),
        budget=BUDGET,
        seed=7,
        checkpoint=CheckpointFacts(
            format="keras2", digest=digest_text("checkpoint"), size_bytes=2_790_000, parameters=683_650, macs=21_070_000
        ),
        data=DataFacts(
            source="idx",
            digest=digest_text("data"),
            splits={"train": 54_700, "calibration": 300, "validation": 5000, "test": 10_000},
        ),
        targets=(
            full_target("x86-64-vnni", "x86-64 server, onnxruntime", "measured:native"),
            full_target("raspberry-pi-5", "ARM64 Linux board, onnxruntime", "proxy:x86_64-host"),
            failing_target(),
        ),
        started=START,
        finished=START + timedelta(seconds=346.2),
        environment={"machine": "AMD EPYC, 2 cores, AVX512-VNNI", "python": "3.11.2", "onnxruntime": "1.32.0"},
        steps_run=41,
        steps_cached=3,
        links={"MLflow run": "http://127.0.0.1:5000/#/experiments/1/runs/abc"},
        command="edgemill optimize recipe.yaml --set seed=7",
    )
