"""Reading profiles: onnxruntime's events, LiteRT's summaries, and what is done with the times."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemill.benchmark import causes_litert
from edgemill.benchmark.causes import explain
from edgemill.benchmark.causes_cause import Case
from edgemill.benchmark.profile_litert import BUILTIN, DELEGATE, profile_litert, read_summaries, tensor_types
from edgemill.benchmark.profile_nodes import NodeTime, Profile, by_operator, typical, without_overhead
from edgemill.benchmark.profile_onnxruntime import empty_model, profile_onnx, read_events
from edgemill.errors import ToolchainError
from edgemill.runtimes import open_model
from tests.runtimes import models

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=True) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "cat", "ts", "dur", "args", "op_name"]), inner, max_size=6)
    ),
    max_leaves=12,
)


def kernel(name, op, ts, dur, **args):
    details = {"op_name": op, "provider": "CPUExecutionProvider", "node_index": "0"} | args
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "tid": 1, "args": details}


def model_run(ts):
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": 100, "tid": 1, "args": {}}


class TestEvents:
    def test_the_first_inference_is_left_out(self):
        events = [model_run(0), kernel("a", "Conv", 1, 90), model_run(100), kernel("a", "Conv", 101, 10)]
        (node,) = read_events(events, "m")
        assert (node.name, node.operator, node.us) == ("a", "Conv", 10)

    def test_a_subgraph_counts_for_its_nodes(self):
        one = [kernel("if", "If", 1, 30), kernel("in", "Relu", 5, 20), kernel("after", "Add", 31, 7)]
        times = {node.operator: node.us for node in read_events([model_run(0), *one], "m")}
        assert times == {"If": 10, "Relu": 20, "Add": 7}

    def test_a_loop_body_counts_once_an_iteration(self):
        one = [kernel("l", "Loop", 1, 30), kernel("in", "Relu", 2, 5), kernel("in", "Relu", 10, 5)]
        times = {node.operator: node.us for node in read_events([model_run(0), *one], "m")}
        assert times == {"Loop": 20, "Relu": 10}

    def test_nodes_in_order_with_their_weights(self):
        events = [model_run(0), kernel("b", "Gemm", 9, 3, parameter_size="4096"), kernel("a", "Relu", 2, 1)]
        nodes = read_events(events, "m")
        assert [node.name for node in nodes] == ["a", "b"]
        assert nodes[1].parameter_bytes == 4096

    def test_no_inference_is_an_error_and_no_node_is_none(self):
        with pytest.raises(ToolchainError, match="cannot be read"):
            read_events([kernel("a", "Conv", 1, 2)], "m")
        assert read_events([model_run(0), model_run(5)], "m") == []

    @given(JSON)
    @settings(max_examples=300, deadline=None)
    def test_anything_else_is_an_error_of_the_toolchain(self, events):
        try:
            nodes = read_events(events, "m")
        except ToolchainError:
            return
        assert all(isinstance(node, NodeTime) for node in nodes)

    @given(st.lists(st.lists(st.integers(0, 50), min_size=3, max_size=3), min_size=2, max_size=12))
    @settings(deadline=None)
    def test_times_come_back(self, runs):
        events, clock = [], 0
        for line in runs:
            events.append(model_run(clock))
            for index, dur in enumerate(line):
                events.append(kernel(f"n{index}", "Relu", clock + 1, dur, node_index=str(index)))
                clock += dur + 1
            clock += 10
        nodes = read_events(json.loads(json.dumps(events)), "m")
        np.testing.assert_allclose([node.us for node in nodes], typical(np.array(runs[1:], float)))


class TestTimes:
    @given(
        st.lists(st.floats(0, 1e4), min_size=1, max_size=20),
        st.floats(0, 1e4),
    )
    def test_overhead_is_shared_out_and_never_more_than_a_node_took(self, us, computing):
        nodes = [NodeTime(str(i), "A", "CPU", value) for i, value in enumerate(us)]
        left, overhead = without_overhead(nodes, computing)
        assert 0 <= overhead <= min(us)
        total = sum(node.us for node in left)
        assert all(node.us >= 0 for node in left)
        assert total == pytest.approx(sum(us) - overhead * len(us), abs=1e-6)
        if sum(us) <= computing:
            assert overhead == 0

    def test_an_interrupted_run_does_not_count(self):
        runs = np.full((10, 2), 5.0)
        runs[3] = 1e6
        np.testing.assert_array_equal(typical(runs), [5, 5])

    def test_operators_are_summed_and_sorted(self):
        nodes = (NodeTime("a", "Conv", "CPU", 1.0), NodeTime("b", "Add", "CPU", 5.0), NodeTime("c", "Conv", "CPU", 2.0))
        rows = by_operator(Profile("r", "m", "CPU", nodes, 8.0, None, 0.0))
        assert [(row.operator, row.count, row.us) for row in rows] == [("Add", 1, 5.0), ("Conv", 2, 3.0)]
        assert sum(row.share for row in rows) == pytest.approx(1)
        assert by_operator(Profile("r", "m", "CPU", (), 8.0, None, 0.0)) == ()

    @pytest.mark.parametrize("nodes", [0, 7])
    def test_the_empty_model_runs_as_many_operators(self, tmp_path, nodes):
        x = np.ones((2, 3), np.float32)
        found = profile_onnx(empty_model(x, tmp_path / "m.onnx", nodes), x, 1, 5.0, 0.0)
        assert len(found.profile.nodes) == nodes + 1
        assert all(node is not None for node in found.nodes)


def table(*rows, total=1000):
    """A summary as LiteRT 2.3 prints it."""
    lines = ["===== Run Order ====="]
    lines += [
        f"  {kind}   0.000   0.004   0.003  {share:.3f}%  50.000%   0.000   {calls}  {name}"
        for kind, share, calls, name in rows
    ]
    return "\n".join(
        [*lines, "", "===== Top by Computation Time =====", f"Timings (microseconds): count=2 curr={total}"]
    )


class TestSummaries:
    def test_delegated_and_not(self):
        text = table(
            ("Delegate/Convolution (NHWC, QC8) IGEMM", 80, 10, "[Delegate]:0"), ("CUMSUM", 20, 10, "[Builtin]:1")
        )
        conv, cumsum = read_summaries([text], "m", 10)
        assert (conv.operator, conv.provider, conv.us) == ("Convolution (NHWC, QC8) IGEMM", DELEGATE, 80)
        assert (cumsum.operator, cumsum.provider, cumsum.us) == ("CUMSUM", BUILTIN, 20)

    @pytest.mark.parametrize("goes_on", [True, False])
    def test_batches_whether_litert_goes_on_counting_or_not(self, goes_on):
        costs, texts, sum_ = [500, 100, 900, 300], [], 0
        for index, cost in enumerate(costs):
            sum_ = sum_ + cost if goes_on else cost
            texts.append(table(("ADD", 100, 10 * (index + 1) if goes_on else 10, "a"), total=sum_))
        (node,) = read_summaries(texts, "m", 10)
        assert node.us == pytest.approx(10)  # the fastest quarter: 100 us of 10 inferences

    @given(st.text(max_size=200))
    @settings(deadline=None)
    def test_any_other_text_is_an_error_of_the_toolchain(self, text):
        with pytest.raises(ToolchainError, match="cannot be read"):
            read_summaries([text], "m", 1)

    def test_batches_that_do_not_belong_together(self):
        with pytest.raises(ToolchainError, match="other operators"):
            read_summaries([table(("ADD", 100, 1, "a")), table(("MUL", 100, 1, "a"))], "m", 1)


def litert_case(*nodes):
    entries = tuple(NodeTime(str(i), kind, provider, us) for i, (kind, provider, us) in enumerate(nodes))
    return Case(Profile("r", "m", DELEGATE, entries, 100.0, None, 0.0), None, True, "x86_64")


class TestLiteRt:
    def test_its_own_profiler(self, tmp_path):
        path = models.dense_tflite(tmp_path / "m.tflite")
        x = models.inputs(1)
        profile = profile_litert(path, x, 1, 10.0)
        assert any("Fully Connected" in node.operator for node in profile.nodes)
        assert {node.provider for node in profile.nodes} == {DELEGATE}

    def test_integer_model_and_free_batch(self, tmp_path):
        x = models.inputs(5)
        whole = models.dense_tflite(tmp_path / "int8.tflite", "int8")
        assert "int8" in tensor_types(whole, 1)
        assert profile_litert(whole, x[:1], 1, 10.0).nodes
        baseline = models.dense_onnx(tmp_path / "m.onnx")
        found = explain(whole, "tflite", x[:1], baseline)
        assert found.runtime.startswith("ai-edge-litert ")
        assert found.operators
        assert found.baseline_operators[0].operator in {"Gemm", "MatMul"}

    def test_sixteen_bit_is_left_by_xnnpack(self, tmp_path):
        path = models.dense_tflite(tmp_path / "m.tflite", "int16")
        profile = profile_litert(path, models.inputs(1), 1, 10.0)
        found = causes_litert.name_causes(Case(profile, None, True, "x86_64"), tensor_types(path, 1))
        assert found[0].cause == "not_delegated"
        assert "int16" in found[0].text
        assert "FULLY_CONNECTED" in found[0].text

    def test_a_wrong_shape_is_an_error_not_a_crash(self, tmp_path):
        path = models.dense_tflite(tmp_path / "m.tflite")
        with pytest.raises(ToolchainError):
            profile_litert(path, np.zeros((1, models.FEATURES + 1), np.float32), 1, 10.0)

    @pytest.mark.parametrize(
        ("node", "types", "cause"),
        [
            (("CUMSUM", BUILTIN, 9.0), {"float32"}, "not_delegated"),
            (("Convert (NC, F32, QDU8)", DELEGATE, 9.0), {"int8"}, "conversion_overhead"),
            (("Convolution (NHWC, F32) IGEMM", DELEGATE, 9.0), {"float32", "int8"}, "float_kernels"),
            (("Convolution (NHWC, F32) IGEMM", DELEGATE, 9.0), {"float32", "float16"}, "float_kernels"),
            (("Convolution (NHWC, F32) IGEMM", DELEGATE, 9.0), {"float32"}, None),
            (("Convolution (NHWC, QC8) IGEMM", DELEGATE, 9.0), {"int8"}, None),
            (("Convolution (NHWC, QDU8, F32, QC8W) IGEMM", DELEGATE, 9.0), {"int8"}, None),
        ],
    )
    def test_rules(self, node, types, cause):
        found = causes_litert.name_causes(litert_case(node), types)
        assert [entry.cause for entry in found] == ([cause] if cause else [])


def test_a_profile_that_onnxruntime_does_not_write(tmp_path, monkeypatch):
    path = models.dense_onnx(tmp_path / "m.onnx")
    broken = tmp_path / "broken.json"
    broken.write_text('[{"name": "model_run"', encoding="utf-8")
    monkeypatch.setattr(onnxruntime.InferenceSession, "end_profiling", lambda self: str(broken))
    with pytest.raises(ToolchainError, match="profile of onnxruntime cannot be read"):
        profile_onnx(path, models.inputs(1), 1, 10.0, 0.0)


def test_a_shape_that_the_model_does_not_take(tmp_path):
    path = models.dense_onnx(tmp_path / "m.onnx", batch=1)
    open_model(path, "onnx")
    with pytest.raises(ToolchainError):
        profile_onnx(path, models.inputs(3), 1, 10.0, 0.0)
