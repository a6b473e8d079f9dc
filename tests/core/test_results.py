"""What becomes of every candidate of a target, from the records of its steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgemill.artifact import Artifact
from edgemill.candidate import CHECKPOINT, Link, Model
from edgemill.errors import ToolchainError
from edgemill.recipe import Budget, Scheme
from edgemill.results import Attempt, Reference, judge
from edgemill.store import StepRecord
from edgemill.summary import Status
from edgemill.targets import load_target
from edgemill.validate.paired_proportions import compare_binary
from edgemill.validate.verdict import GateFacts

TARGET = load_target("x86-64-vnni")
BUDGET = Budget(max_accuracy_drop=0.02)


def artifact(name: str) -> Artifact:
    return Artifact(digest=name.encode().hex().ljust(64, "0")[:64], filename=name, kind="onnx", size_bytes=1, step="t")


def record(step: str, facts: dict, **outputs: Artifact) -> StepRecord:
    return StepRecord(
        key="0" * 64, step=step, version=1, settings={}, inputs={}, outputs=outputs, facts=facts, tools={}, seed=0,
        extra={}, wall_s=0.0, finished_at="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def gated(lost: int, n: int = 1000) -> StepRecord:
    import numpy as np

    right = np.ones(n)
    ours = right.copy()
    ours[:lost] = 0
    verdict = compare_binary(right, ours, BUDGET)
    facts = GateFacts(verdict=verdict, accuracy=float(ours.mean()), baseline_accuracy=1.0, lost=lost, won=0)
    return record("validate.gate", facts.model_dump(mode="json"))


def measured(ratio: float, size: int) -> StepRecord:
    times = {
        "latency_p50_ms": ratio,
        "latency_p95_ms": ratio,
        "latency_p99_ms": ratio,
        "ratio": ratio,
        "ratio_lower": ratio,
        "ratio_upper": ratio,
        "rounds_counted": 32,
        "stopped": "precise",
        "batches": [],
    }
    shared = {
        "size_bytes": 100,
        "compressed_bytes": 100,
        "transfer_bytes": 100,
        "peak_rss_bytes": 10,
        "arena_bytes": None,
        "throughput_per_s": 1000.0,
        "cold_start_ms": 100.0,
    }
    baseline = {f"baseline_{name}": value for name, value in shared.items()}
    baseline |= {"baseline_p50_ms": 1.0, "baseline_p95_ms": 1.0, "baseline_p99_ms": 1.0}
    sizes = shared | {"size_bytes": size, "compressed_bytes": size, "transfer_bytes": size}
    return record("benchmark", {**times, **sizes, **baseline, "ratio_confidence": 0.95, "source": "measured:native"})


MODELS = {
    CHECKPOINT: Model(name=CHECKPOINT, chain=(), files={"onnx": artifact("c")}),
    "distill": Model(
        name="distill",
        chain=(Link(stage="distill", step="distill.student", title="distill", model="distill"),),
        files={},
    ),
}


def attempt(model: str, scheme: Scheme | None, *, lost: int = 0, ratio: float = 0.5, size: int = 50) -> Attempt:
    name = f"{model}-{scheme}"
    return Attempt(
        MODELS[model],
        scheme,
        TARGET,
        quantized=None if scheme is None else record("quantize.static", {}),
        compiled=record("compile", {}, model=artifact(name)),
        screened=gated(lost),
        measured=measured(ratio, size),
    )


def results(attempts: list[Attempt], on_test: dict[str, int]):
    seen: list[str] = []

    def test(item: Attempt) -> StepRecord:
        seen.append(item.name)
        return gated(on_test.get(item.name, 0))

    reference = Reference(MODELS[CHECKPOINT], 1.0, lambda: 0.99)
    return judge(TARGET, attempts, reference, BUDGET, test), seen


def test_the_fastest_that_passes_is_selected_and_the_waterfall_shows_its_steps():
    slow = attempt("distill", None, ratio=0.5, size=40)
    fast = attempt("distill", Scheme.INT8_STATIC, ratio=0.2, size=20, lost=1)
    result, seen = results([slow, fast], {})
    assert seen == ["distill-fp32", "distill-int8_static"], "safest first"
    chosen = result.selected_variant
    assert chosen.candidate == "distill-int8_static"
    assert [step.stage for step in chosen.chain] == ["ingest", "distill", "quantize"]
    assert [step.compressed_bytes for step in chosen.chain] == [100, 40, 20]
    assert [step.latency_p50_ms for step in chosen.chain] == pytest.approx([1.0, 0.5, 0.2])


def test_nothing_is_tested_behind_the_first_that_does_not_pass():
    safe = attempt("distill", None, ratio=0.5, size=40)
    bold = attempt("distill", Scheme.INT8_STATIC, ratio=0.2, size=20, lost=5)
    result, seen = results([safe, bold], {"distill-fp32": 100})
    assert seen == ["distill-fp32"]
    assert [variant.status for variant in result.variants] == [Status.FAILED, Status.INCONCLUSIVE]
    assert result.selected_variant is None


def test_a_clear_loss_on_validation_data_never_touches_test_data():
    broken = attempt(CHECKPOINT, Scheme.INT8_STATIC, lost=300)
    broken.measured = None
    good = attempt("distill", None)
    result, seen = results([broken, good], {})
    assert seen == ["distill-fp32"]
    assert result.variants[0].status is Status.DROPPED
    assert "validation" in result.variants[0].reason


@pytest.mark.parametrize("alone", [True, False])
def test_a_failed_measurement_is_a_failure_with_its_reason(alone):
    unmeasured = attempt(CHECKPOINT, Scheme.FP16)
    unmeasured.measured = None
    unmeasured.failure = ToolchainError("The process died.", where=str(Path("log")))
    result, _ = results([unmeasured] if alone else [unmeasured, attempt("distill", None)], {})
    assert result.variants[0].status is Status.FAILED
    assert "The process died." in result.variants[0].reason
    assert (result.selected_variant is None) == alone


def test_what_is_not_better_than_the_baseline_is_dropped():
    result, seen = results([attempt(CHECKPOINT, Scheme.FP16, ratio=1.2, size=100)], {})
    assert seen == []
    assert result.variants[0].status is Status.DROPPED
    assert "not better" in result.variants[0].reason


def test_a_gate_that_cannot_run_its_variant_fails_it_and_the_run_goes_on():
    def test(item: Attempt) -> StepRecord:
        raise ToolchainError("The emulated process died.", where="qemu")

    reference = Reference(MODELS[CHECKPOINT], 1.0, lambda: 0.99)
    result = judge(TARGET, [attempt("distill", None)], reference, BUDGET, test)
    assert result.variants[0].status is Status.FAILED
    assert "cannot be run on test data: The emulated process died.; where: qemu" in result.variants[0].reason
