import gc
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemill.artifact import canonical_json
from edgemill.benchmark import BenchmarkSettings
from edgemill.benchmark.footprint import measure_footprint
from edgemill.benchmark.host import fingerprint, fingerprint_digest, usable_cores
from edgemill.benchmark.interval import bootstrap_median, round_ratios
from edgemill.benchmark.latency import interleave, pinned, run, time_block
from edgemill.errors import DataError, ToolchainError
from edgemill.recipe import Benchmark
from edgemill.targets import load_target, provenance
from tests.runtimes import models


class TestInterval:
    def test_ratio_is_taken_within_rounds(self):
        rng = np.random.default_rng(0)
        drift = np.linspace(1, 5, 40)[:, None]
        baseline = drift * rng.uniform(0.99, 1.01, (40, 9))
        variant = 0.4 * drift * rng.uniform(0.99, 1.01, (40, 9))
        ratio, lower, upper = bootstrap_median(round_ratios(variant, baseline), 0.95, 2000, seed=1)
        assert lower < ratio < upper
        assert lower > 0.395
        assert upper < 0.405

    def test_one_slow_call_in_a_round_does_not_move_it(self):
        baseline = np.ones((10, 5))
        variant = np.full((10, 5), 0.5)
        variant[:, 2] = 1000
        np.testing.assert_array_equal(round_ratios(variant, baseline), np.full(10, 0.5))

    @pytest.mark.parametrize("confidence", [0.8, 0.95])
    def test_interval_covers_the_true_median_as_often_as_it_says(self, confidence):
        rng = np.random.default_rng(4)
        trials, covered = 400, 0
        for trial in range(trials):
            values = np.exp(rng.normal(np.log(0.7), 0.2, 30))
            _, lower, upper = bootstrap_median(values, confidence, 999, seed=trial)
            covered += lower <= 0.7 <= upper
        assert abs(covered / trials - confidence) < 0.05

    def test_more_confidence_is_wider_and_more_rounds_are_narrower(self):
        values = np.random.default_rng(5).normal(1, 0.1, 200)

        def width(sample, confidence):
            _, lower, upper = bootstrap_median(sample, confidence, 2000, seed=0)
            return upper - lower

        assert width(values[:30], 0.8) < width(values[:30], 0.99)
        assert width(values, 0.95) < width(values[:20], 0.95)

    def test_seed_decides_and_global_state_does_not(self):
        values = np.random.default_rng(6).normal(1, 0.1, 30)
        np.random.seed(1)
        first = bootstrap_median(values, 0.95, 1234, seed=9)
        np.random.seed(2)
        assert bootstrap_median(values, 0.95, 1234, seed=9) == first

    @given(value=st.floats(0.01, 100), rounds=st.integers(1, 40))
    def test_equal_rounds_have_no_width(self, value, rounds):
        assert bootstrap_median(np.full(rounds, value), 0.95, 999, seed=0) == pytest.approx((value, value, value))


class TestInterleaving:
    def test_blocks_alternate_and_the_first_changes(self):
        order = []
        rule = Benchmark(rounds=6, runs_per_round=3)
        times = interleave(
            lambda: order.append("v"), lambda: order.append("b"), rule, lambda fraction, message: order.append("|")
        )
        rounds = "".join(order).strip("|").split("|")
        assert len(rounds) == 6
        block = len(rounds[0]) // 2
        assert block >= 3
        for index, text in enumerate(rounds):
            first, second = ("v", "b") if index % 2 == 0 else ("b", "v")
            assert text == first * block + second * block
        assert times["variant"].shape == times["baseline"].shape == (6, 3)
        assert times["variant"].dtype == np.int64
        assert (times["variant"] > 0).all()

    def test_collector_is_off_while_timing_and_as_before_afterwards(self):
        seen = []
        gc.enable()
        time_block(lambda: seen.append(gc.isenabled()), 5)
        assert gc.isenabled()
        assert seen[-5:] == [False] * 5
        gc.disable()
        try:
            time_block(lambda: None, 2)
            assert not gc.isenabled()
        finally:
            gc.enable()

    def test_collector_comes_back_after_an_error(self):
        def fail():
            raise RuntimeError("broken")

        gc.enable()
        with pytest.raises(RuntimeError):
            time_block(fail, 3)
        assert gc.isenabled()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin")
def test_pinning_ends_with_the_measurement():
    before = usable_cores()
    with pinned(1) as cores:
        assert cores == usable_cores()
        assert len(cores) == 1
    assert usable_cores() == before
    with pinned(len(before) + 1) as cores:
        assert cores is None


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
        benchmark=Benchmark(rounds=8, runs_per_round=6, batch=2), target=load_target("android-litert")
    )
    return settings, inputs, run(settings, inputs, models.context(folder / "run", messages)), messages


class TestBody:
    def test_samples_are_kept_and_are_what_the_facts_say(self, measured):
        _, _, outputs, _ = measured
        facts = outputs.facts
        with np.load(outputs.files["samples"].path, allow_pickle=False) as samples:
            variant, baseline = samples["variant_ns"], samples["baseline_ns"]
        assert variant.shape == baseline.shape == (8, 6)
        assert facts["latency_p50_ms"] == pytest.approx(np.median(variant) / 1e6)
        assert facts["baseline_p95_ms"] == pytest.approx(np.percentile(baseline, 95) / 1e6)
        ratios = np.median(variant, axis=1) / np.median(baseline, axis=1)
        assert facts["ratio"] == pytest.approx(np.median(ratios))
        assert facts["speedup"] == pytest.approx(1 / facts["ratio"])
        assert facts["ratio_lower"] <= facts["ratio"] <= facts["ratio_upper"]
        assert facts["throughput_per_s"] == pytest.approx(2e9 / variant.mean())

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
        assert facts["compression"] == "gzip -9"

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


def test_memory_of_a_model_grows_with_its_weights(tmp_path):
    import onnx
    from onnx import numpy_helper

    batch = tmp_path / "x.npy"
    np.save(batch, models.inputs(1))
    small = models.dense_onnx(tmp_path / "small.onnx")
    model = onnx.load(small)
    ballast = np.random.default_rng(0).normal(size=(models.CLASSES, 4_000_000)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(ballast, "ballast"))
    model.graph.node.append(onnx.helper.make_node("ReduceSum", ["ballast_p"], ["unused"], keepdims=0))
    model.graph.node.insert(1, onnx.helper.make_node("Mul", ["ballast", "y0"], ["ballast_p"]))
    model.graph.node[0].output[0] = "y1"
    model.graph.node.insert(1, onnx.helper.make_node("ReduceMax", ["y1"], ["y0"], keepdims=0))
    model.graph.node.append(onnx.helper.make_node("Mul", ["unused", "zero"], ["nothing"]))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "zero"))
    model.graph.node.append(onnx.helper.make_node("Add", ["y1", "nothing"], ["y"]))
    large = tmp_path / "large.onnx"
    onnx.save(model, large)
    found = {path: measure_footprint(path, "onnx", batch, threads=1, repeats=1) for path in (small, large)}
    assert found[large].peak_rss_bytes - found[small].peak_rss_bytes >= ballast.nbytes
    assert found[small].peak_rss_bytes < ballast.nbytes
    assert found[small].load_ms > 0
    assert found[small].first_inference_ms > 0


def test_fingerprint_is_stable_and_names_the_machine():
    assert fingerprint_digest() == fingerprint_digest()
    facts = fingerprint()
    assert facts["cores"] == len(usable_cores())
    assert facts["memory_bytes"] % (1 << 28) == 0
    assert facts["cpu"]
    assert facts["kernel"]
    assert set(facts["versions"]) == {"onnxruntime", "ai-edge-litert", "numpy"}
    canonical_json(facts)
