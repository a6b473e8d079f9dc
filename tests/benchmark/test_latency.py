import os

import numpy as np
import pytest

from edgemill.artifact import canonical_json
from edgemill.benchmark import BenchmarkSettings
from edgemill.benchmark.host import fingerprint, fingerprint_digest, usable_cores
from edgemill.benchmark.interval import REPRODUCIBILITY, typical
from edgemill.benchmark.latency import run
from edgemill.benchmark.speed import speed_verdict
from edgemill.errors import DataError, ToolchainError
from edgemill.recipe import Benchmark
from edgemill.targets import load_target, provenance
from tests.runtimes import models

SIZES = (1, 4, 50)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    messages = []
    inputs = {
        "variant": models.input_file(models.dense_tflite(folder / "v.tflite", "int8"), "tflite"),
        "baseline": models.input_file(models.dense_onnx(folder / "b.onnx"), "onnx"),
        "data": models.input_file(models.dataset(folder / "data", models.inputs(10)), "dataset"),
    }
    settings = BenchmarkSettings(
        benchmark=Benchmark(rounds=8, runs_per_round=6, batch=2, batches=SIZES, time_budget_s=1),
        target=load_target("android-arm64"),
    )
    return settings, inputs, run(settings, inputs, models.context(folder / "run", messages)), messages


class TestBody:
    def test_samples_are_kept_and_are_what_the_facts_say(self, measured):
        settings, _, outputs, _ = measured
        facts = outputs.facts
        with np.load(outputs.files["samples"].path, allow_pickle=False) as samples:
            counted = samples["counted"]
            variant, baseline = samples["variant_ns"][counted], samples["baseline_ns"][counted]
            assert samples["variant_ns"].shape == samples["baseline_ns"].shape == (facts["rounds"], 6)
            assert facts["cold_start_ms"] == pytest.approx(np.median(samples["variant_cold_start_ms"]))
            assert samples["batch4_variant_ns"].shape[1] == 6
        assert facts["rounds_counted"] == len(variant) >= 8
        assert facts["latency_p50_ms"] == pytest.approx(np.median(variant) / 1e6)
        assert facts["baseline_p95_ms"] == pytest.approx(np.percentile(baseline, 95) / 1e6)
        estimate = typical(np.median(variant, axis=1) / np.median(baseline, axis=1), settings.confidence).reproducible()
        assert (facts["ratio"], facts["ratio_lower"], facts["ratio_upper"]) == pytest.approx(estimate)
        assert facts["speed"] == speed_verdict(*estimate)
        assert facts["speedup"] == pytest.approx(1 / facts["ratio"])
        assert facts["throughput_per_s"] == pytest.approx(2e9 / variant.mean())

    def test_the_run_ends_for_a_reason(self, measured):
        settings, _, outputs, _ = measured
        facts = outputs.facts
        half = (facts["ratio_upper"] - facts["ratio_lower"]) / 2
        wanted = settings.benchmark.precision + REPRODUCIBILITY
        assert facts["stopped"] in ("precise", "time budget")
        assert facts["stopped"] == "time budget" or half <= wanted * facts["ratio"]
        assert facts["sittings"] >= 8

    def test_memory_and_start_of_both(self, measured):
        facts = measured[2].facts
        for prefix in ("", "baseline_"):
            assert facts[f"{prefix}cold_start_ms"] > facts[f"{prefix}load_ms"] > 0
            assert facts[f"{prefix}peak_rss_bytes"] >= 0
            assert facts[f"{prefix}arena_bytes"] is not None, facts[f"{prefix}arena_source"]

    def test_further_batch_sizes(self, measured):
        by_size = {entry["batch"]: entry for entry in measured[2].facts["batches"]}
        assert tuple(by_size) == SIZES
        for size in (1, 4):
            entry = by_size[size]
            assert entry["lower"] <= entry["ratio"] <= entry["upper"]
            assert entry["throughput_per_s"] > 0
            assert entry["p50_ms"] > 0
        assert "fewer validation samples" in by_size[50]["skipped"]

    def test_a_file_of_one_batch_size_says_so(self, measured, tmp_path):
        settings, inputs, _, _ = measured
        fixed = models.input_file(models.dense_onnx(tmp_path / "fixed.onnx", batch=2), "onnx")
        outputs = run(settings, inputs | {"variant": fixed}, models.context(tmp_path / "run"))
        skipped = [entry.get("skipped", "") for entry in outputs.facts["batches"]]
        assert all("exactly 2 samples" in reason for reason in skipped[:2])
        assert "fixed.onnx" in skipped[0]

    def test_a_file_that_does_not_take_the_batch(self, measured, tmp_path):
        settings, inputs, _, _ = measured
        fixed = models.input_file(models.dense_onnx(tmp_path / "fixed.onnx", batch=3), "onnx")
        with pytest.raises(ToolchainError) as error:
            run(settings, inputs | {"variant": fixed}, models.context(tmp_path / "run"))
        assert "fixed.onnx" in str(error.value)

    def test_percentiles_are_in_order(self, measured):
        facts = measured[2].facts
        for prefix in ("latency_", "baseline_"):
            assert 0 < facts[f"{prefix}p50_ms"] <= facts[f"{prefix}p95_ms"] <= facts[f"{prefix}p99_ms"]

    def test_sizes_are_of_the_files(self, measured):
        _, inputs, outputs, _ = measured
        facts = outputs.facts
        assert facts["size_bytes"] == inputs["variant"].artifact.size_bytes
        assert facts["baseline_size_bytes"] == inputs["baseline"].artifact.size_bytes
        assert 0 < facts["compressed_bytes"] < facts["size_bytes"]
        assert 0 < facts["transfer_bytes"] < facts["size_bytes"]
        assert (facts["compression"], facts["transfer_compression"]) == ("gzip -9", "zstd -19")

    def test_conditions_are_declared(self, measured):
        settings, _, outputs, _ = measured
        facts = outputs.facts
        assert facts["source"] == provenance(settings.target, os.uname().machine)
        assert (facts["threads"], facts["batch"]) == (1, 2)
        assert facts["ratio_confidence"] == settings.confidence
        assert facts["runtime"] == "ai-edge-litert"
        assert facts["host"] == fingerprint()
        assert facts["warm_up_blocks"] >= 6
        assert facts["involuntary_switches"] >= 0

    def test_facts_are_json(self, measured):
        canonical_json(measured[2].facts)

    def test_only_the_samples_are_left(self, measured):
        path = measured[2].files["samples"].path
        assert [file.name for file in path.parent.iterdir()] == [path.name]

    def test_progress_reaches_the_end(self, measured):
        fractions = [fraction for fraction, _ in measured[3] if fraction is not None]
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0

    def test_broken_variant(self, measured, tmp_path):
        settings, inputs, _, _ = measured
        path = tmp_path / "broken.onnx"
        path.write_bytes(b"nothing")
        with pytest.raises(ToolchainError) as error:
            run(settings, inputs | {"variant": models.input_file(path, "onnx")}, models.context(tmp_path / "run"))
        assert str(path) in str(error.value)

    def test_batch_larger_than_the_data(self, measured, tmp_path):
        settings, inputs, _, _ = measured
        settings = settings.model_copy(update={"benchmark": Benchmark(batch=11)})
        with pytest.raises(DataError) as error:
            run(settings, inputs, models.context(tmp_path / "run"))
        assert error.value.where == "benchmark.batch"


def test_fingerprint_is_stable_and_names_the_machine():
    assert fingerprint_digest() == fingerprint_digest()
    facts = fingerprint()
    assert facts["cores"] == len(usable_cores())
    assert facts["memory_bytes"] % (1 << 28) == 0
    assert facts["cpu"]
    assert facts["kernel"]
    assert set(facts["versions"]) == {"onnxruntime", "ai-edge-litert", "numpy"}
    canonical_json(facts)
