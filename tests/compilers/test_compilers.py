"""One contract for all compilers with a toolchain of their own: what is compiled answers as its ONNX model."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgemill.errors import ToolchainError
from edgemill.recipe import Scheme
from tests.compilers import compiler_graphs as graphs
from tests.compilers.conftest import in_onnxruntime

BACKENDS = ("ncnn", "tvm", "iree")
GARBAGE = b"\x7fELF no model at all \x00\xff" * 40


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture
def target(bench, backend):
    return bench.target(backend)


@pytest.mark.parametrize("structure", graphs.STRUCTURES)
def test_the_compiled_file_answers_as_the_onnx_model(bench, backend, target, structure):
    record = bench.compiled(target, structure)
    facts = record.facts
    assert record.outputs["model"].kind == backend
    assert facts["compared"] == 20
    assert facts["agreement"] == 1.0
    assert facts["max_difference"] < 1e-4
    assert facts["size_bytes"] == record.outputs["model"].size_bytes > 0
    signature = record.outputs["model"].signature
    assert signature.inputs[0].shape == (1, *graphs.sample_shape(structure))
    assert signature.outputs[0].shape == (1, graphs.CLASSES)


@pytest.fixture
def seen(bench, backend, target, tmp_path):
    """What the adapter did with two models, and what onnxruntime says of them."""
    key = f"seen-{backend}"
    if not hasattr(bench, key):
        first, second = "residual", "dense"
        garbage = tmp_path / "garbage"
        if backend == "ncnn":
            garbage.mkdir()
            for name in ("model.param", "model.bin", "model.json"):
                (garbage / name).write_bytes(GARBAGE)
        else:
            garbage.write_bytes(GARBAGE)
        files = []
        for structure, count in ((first, 7), (second, 4)):
            np.save(tmp_path / f"{structure}.npy", graphs.samples(structure, count, seed=5))
            files.append(tmp_path / f"{structure}.npy")
        paths = [bench.path(bench.compiled(target, structure)) for structure in (first, second)]
        told = bench.ask(target.toolchain, backend, *paths, garbage, *files)
        wanted = [
            in_onnxruntime(bench.source(structure), np.load(file))
            for structure, file in zip((first, second), files, strict=True)
        ]
        setattr(bench, key, (told, *wanted))
    return getattr(bench, key)


def close(answer, wanted):
    np.testing.assert_allclose(np.array(answer), wanted, atol=1e-5)


def test_batches_of_any_size(seen):
    told, wanted, _ = seen
    close(told["predict"], wanted)
    close(told["single"], wanted)
    assert told["dtype"] == "float32"
    assert told["none"] == [0, graphs.CLASSES]


def test_prepared_calls_answer_as_predict(seen):
    told, wanted, _ = seen
    close(told["prepared"], wanted[:1])
    close(told["prepared_three"], wanted[:3])


def test_two_models_do_not_disturb_each_other(seen):
    told, wanted, other = seen
    close(told["other"], other)
    close(told["between"], other[:2])
    close(told["prepared_again"], wanted[:1])


def test_answers_stay_when_the_next_call_is_made(seen):
    told, wanted, _ = seen
    close(told["rows"], wanted)
    assert told["predict_stays"]
    assert told["prepare_stays"]


def test_several_threads_give_the_same(seen):
    told, wanted, _ = seen
    close(told["threaded"], wanted)


@pytest.mark.parametrize("case", ["wrong_shape", "wrong_rank"])
def test_samples_of_another_shape_are_refused(seen, case):
    refusal = seen[0][case]
    assert refusal["type"] == "DataError"
    assert "shape" in refusal["text"]


@pytest.mark.parametrize("case", ["garbage", "absent"])
def test_what_is_no_model_is_refused(seen, case, backend):
    refusal = seen[0][case]
    assert refusal["type"] == "ToolchainError"
    assert "where:" in refusal["text"]
    assert "expected:" in refusal["text"]


def test_the_adapter_says_what_it_is(seen, backend, target):
    told = seen[0]
    assert told["kinds"] == [backend]
    assert re.fullmatch(r"[\d.]+(post\d+)?", told["version"])
    assert told["input"] == [1, *graphs.IMAGE]
    assert told["output"] == [1, graphs.CLASSES]


@pytest.mark.parametrize("backend", ["tvm", "iree"], indirect=True)
def test_quantized_graphs_keep_their_answers(bench, target, backend):
    source = bench.quantized("conv_norm_relu")
    facts = bench.compile(target, source, bench.data("conv_norm_relu"), Scheme.INT8_STATIC).facts
    assert facts["mean_difference"] < 0.01
    assert facts["agreement"] >= 0.95
    if backend == "tvm":  # whatever the graph says: TVM multiplies what DequantizeLinear gives
        assert facts["precisions"] == {"float32": 2}
        assert len(facts["float_nodes"]) == 2
    else:
        assert facts["op_counts"]["QuantizeLinear"] > 2


def test_the_same_model_gives_the_same_file(bench, target):
    first = bench.compiled(target, "residual")
    again = type(bench)(bench.folder / f"again-{target.backend}")
    assert again.compile(target, bench.source("residual"), bench.data("residual")).outputs["model"].digest == (
        first.outputs["model"].digest
    )


def test_an_unknown_operator_is_named(bench, target, tmp_path):
    nodes = [helper.make_node("Frobnicate", ["x"], ["y"], domain="acme")]
    edges = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 12]) for name in "xy"]
    graph = helper.make_graph(nodes, "strange", edges[:1], edges[1:])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("acme", 1)]
    path = tmp_path / "strange.onnx"
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    with pytest.raises(ToolchainError) as error:
        bench.compile(target, path, bench.data("dense"))
    assert "Frobnicate" in str(error.value)


def test_an_open_image_size_is_refused(bench, target, tmp_path):
    model = onnx.load(bench.source("residual"))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "height"
    path = tmp_path / "open.onnx"
    onnx.save(model, path)
    with pytest.raises(ToolchainError, match="fixed shapes") as error:
        bench.compile(target, path, bench.data("residual"))
    assert "no other open size" in error.value.expected


@pytest.mark.parametrize("backend", ["ncnn"], indirect=True)
def test_half_precision_of_ncnn(bench, target):
    plain = bench.compiled(target, "residual")
    half = bench.compiled(target, "residual", Scheme.FP16)
    assert half.facts["weights"] == "float16"
    assert plain.facts["weights"] == "float32"
    assert 0 < half.facts["max_difference"] < 1e-2
    weights = [(bench.path(record) / "model.bin").stat().st_size for record in (half, plain)]
    assert weights[0] < 0.65 * weights[1]


@pytest.mark.parametrize("backend", ["ncnn"], indirect=True)
def test_a_quantized_graph_is_refused_by_ncnn_with_the_reason(bench, target):
    with pytest.raises(ToolchainError, match="does not convert") as error:
        bench.compile(target, bench.quantized("residual"), bench.data("residual"), Scheme.INT8_STATIC)
    assert "QuantizeLinear" in error.value.got
    assert "fp32 or fp16" in error.value.remedy
