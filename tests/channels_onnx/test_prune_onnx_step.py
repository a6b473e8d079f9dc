"""The step `channels.prune_onnx`: what it refuses, what it repairs, what it tells."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parent))

from onnx_graphs import Builder, random_graph

from edgemill.artifact import Artifact, digest_path
from edgemill.channels import onnx_list
from edgemill.channels.cost import LayerShape
from edgemill.channels.latency_steps import Geometry, GeometrySettings, LayerGrid, measuring_plan
from edgemill.channels.latency_table import LatencyTable, Measured
from edgemill.channels.onnx_graph import follow
from edgemill.channels.onnx_kernels import matrix_of, patches, positions, reading_kernels
from edgemill.channels.onnx_prune import run
from edgemill.channels.onnx_steps import PruneOnnxSettings
from edgemill.data.dataset import SplitName, write_dataset
from edgemill.errors import CheckpointError, DataError, RecipeError
from edgemill.recipe import Preprocess
from edgemill.runtimes.onnxruntime import session_options
from edgemill.step import InputFile, StepContext


def _input(path, kind):
    return InputFile(path, Artifact(digest=digest_path(path), filename=path.name, kind=kind, size_bytes=1, step="test"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    x = np.random.default_rng(0).normal(size=(200, 3, 6, 6)).astype(np.float32)
    write_dataset(folder, dict.fromkeys(SplitName, x), None, Preprocess(scale=1, mean=0, std=1))
    return _input(folder, "dataset")


def _prune(tmp_path, model, data, name="a", **values):
    folder = tmp_path / name
    (folder / "out").mkdir(parents=True)
    onnx.save(model, str(folder / "in.onnx"))
    context = StepContext(folder / "out", folder, 3, lambda fraction, message: None)
    extra = values.pop("inputs", {})
    made = run(
        PruneOnnxSettings(**values), {"onnx": _input(folder / "in.onnx", "onnx"), "data": data, **extra}, context
    )
    return made, made.files["onnx"].path


def _answer(path, x):
    session = onnxruntime.InferenceSession(str(path), session_options(1))
    return session.run(None, {"x": x})[0]


def _plain(seed=0, channels=8):
    b = Builder(seed)
    x = b.node("Relu", b.conv("x", channels))
    x = b.node("Relu", b.conv(x, channels))
    pooled = b.node("Flatten", b.node("GlobalAveragePool", x))
    return b, b.model(b.node("Gemm", pooled, b.weights(channels, 4), b.weights(4), channels=4))


def _weights(model, position):
    """The kernel of the convolution at a place, to be changed."""
    node = [node for node in model.graph.node if node.op_type == "Conv"][position]
    tensor = next(item for item in model.graph.initializer if item.name == node.input[1])
    bias = next(item for item in model.graph.initializer if item.name == node.input[2])
    return tensor, bias


def _change(tensor, value):
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), tensor.name))


@pytest.mark.parametrize("importance", ["taylor", "bn_gamma"])
def test_what_needs_gradients_is_refused_with_a_remedy(tmp_path, data, importance):
    with pytest.raises(RecipeError) as caught:
        _prune(tmp_path, _plain()[1], data, keep=0.5, importance=importance)
    assert "importance: activation" in (caught.value.remedy or "")


def test_latency_without_a_table_is_refused(tmp_path, data):
    with pytest.raises(RecipeError, match="table"):
        _prune(tmp_path, _plain()[1], data, keep=0.5, cost="latency")


def test_graph_without_removable_channels_is_refused_and_says_why(tmp_path, data):
    b = Builder(0)
    x = b.node("DepthToSpace", b.conv("x", 4), blocksize=2, channels=1)
    with pytest.raises(CheckpointError) as caught:
        _prune(tmp_path, b.model(x, rank=4), data, keep=0.5)
    assert "DepthToSpace" in str(caught.value)


def test_damaged_file_is_refused(tmp_path, data):
    (tmp_path / "bad.onnx").write_bytes(b"not onnx at all")
    context = StepContext(tmp_path, tmp_path, 3, lambda fraction, message: None)
    with pytest.raises(CheckpointError):
        run(PruneOnnxSettings(keep=0.5), {"onnx": _input(tmp_path / "bad.onnx", "onnx"), "data": data}, context)


def test_samples_that_are_not_finite_are_named(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    x = np.full((4, 3, 6, 6), np.nan, np.float32)
    write_dataset(folder, dict.fromkeys(SplitName, x), None, Preprocess(scale=1, mean=0, std=1))
    with pytest.raises(DataError, match="finite"):
        _prune(tmp_path, _plain()[1], _input(folder, "dataset"), keep=0.5)


@pytest.mark.parametrize("importance", ["activation", "l1"])
@pytest.mark.parametrize("cost", ["macs", "bytes"])
def test_cost_is_kept_and_counts_are_multiples(tmp_path, data, importance, cost):
    model = random_graph(["residual", "squeeze", "concat", "depthwise"], "pooled", 2)
    made, path = _prune(tmp_path, model, data, keep=0.7, importance=importance, cost=cost, multiple=2)
    assert made.facts["reached"]
    assert made.facts["cost"]["share"] <= 0.7
    after = {group.name: group.channels for group in follow(onnx.load(str(path))).map.groups}
    for group in made.facts["groups"]:
        assert after[group["name"]] == group["after"]
        assert group["after"] == group["before"] or group["after"] % 2 == 0
    assert made.facts["parameters"]["after"] < made.facts["parameters"]["before"]
    assert _answer(path, np.zeros((5, 3, 6, 6), np.float32)).shape == (5, 4)


def test_what_cannot_be_reached_is_a_warning(tmp_path, data):
    made, _ = _prune(tmp_path, _plain()[1], data, keep=0.01)
    assert not made.facts["reached"]
    assert "cannot be reached" in made.facts["warnings"][0]


def test_latency_table_decides_what_goes(tmp_path, data):
    _, model = _plain()
    shapes = [use.shape for use in follow(model).map.uses]
    layers = {}
    for shape in shapes:
        grid = LayerGrid(geometry=Geometry.of(shape), inputs=(1, 3, 4, 8), outputs=(1, 4, 8))
        # Only the outputs of a convolution cost time, so its channels go and nothing else is gained.
        us = np.tile(np.array([1.0, 4.0, 8.0]), (4, 1)) if shape.kind == "conv" else np.ones((4, 3))
        layers[grid.geometry] = Measured(grid, us, np.zeros_like(us))
    LatencyTable(list(layers.values()), "made up", 0.0).write(tmp_path / "table.json")
    extra = {"latency": _input(tmp_path / "table.json", "latency_table")}
    made, _ = _prune(tmp_path, model, data, keep=0.8, cost="latency", inputs=extra)
    assert made.facts["cost"]["unit"] == "us"
    assert made.facts["cost"]["before"] == pytest.approx(17.0)
    assert made.facts["cost"]["after"] == pytest.approx(13.0)


def test_equal_inputs_give_equal_bytes(tmp_path, data):
    model = random_graph(["residual", "squeeze"], "flattened", 2)
    paths = [_prune(tmp_path, model, data, name, keep=0.6)[1] for name in ("one", "two")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_constant_channels_move_into_the_bias_without_a_change(tmp_path, data):
    _, model = _plain()
    kernel, bias = _weights(model, 0)
    value, shift = numpy_helper.to_array(kernel).copy(), numpy_helper.to_array(bias).copy()
    value[:4], shift[:4] = 0, [0.5, 1.0, 1.5, 2.0]
    _change(kernel, value)
    _change(bias, shift)
    for node in model.graph.node:  # padding with zeros would let the edge see the constant
        if node.op_type == "Conv":
            node.attribute.remove(next(item for item in node.attribute if item.name == "pads"))
    x = np.random.default_rng(5).normal(size=(20, 3, 6, 6)).astype(np.float32)
    onnx.save(model, str(tmp_path / "whole.onnx"))
    wanted = _answer(tmp_path / "whole.onnx", x)
    made, path = _prune(tmp_path, model, data, keep=0.75, repair="mean")
    assert made.facts["groups"][0]["after"] == 4
    np.testing.assert_allclose(_answer(path, x), wanted, atol=1e-5)
    _, unrepaired = _prune(tmp_path, model, data, "none", keep=0.75, repair="none")
    assert np.abs(_answer(unrepaired, x) - wanted).max() > 0.01


def test_channels_that_follow_from_others_are_solved_away(tmp_path, data):
    _, model = _plain()
    kernel, bias = _weights(model, 0)
    value, shift = numpy_helper.to_array(kernel).copy(), numpy_helper.to_array(bias).copy()
    value[4:], shift[4:] = 0.01 * value[:4], 0.01 * shift[:4]
    _change(kernel, value)
    _change(bias, shift)
    x = np.random.default_rng(5).normal(size=(20, 3, 6, 6)).astype(np.float32)
    onnx.save(model, str(tmp_path / "whole.onnx"))
    wanted = _answer(tmp_path / "whole.onnx", x)
    reader, _ = _weights(model, 1)
    errors = {}
    for repair in ("none", "mean", "least_squares"):
        made, path = _prune(tmp_path, model, data, repair, keep=0.75, repair=repair)
        assert made.facts["groups"][0]["after"] == 4
        errors[repair] = np.abs(_answer(path, x) - wanted).max()
    assert errors["least_squares"] < errors["mean"] < errors["none"]
    assert reader


@pytest.mark.parametrize("head", ["pooled", "flattened", "flattened_last"])
def test_repair_brings_answers_nearer(tmp_path, data, head):
    model = random_graph(["residual", "squeeze", "last", "squeeze_dense"], head, 4)
    onnx.save(model, str(tmp_path / "whole.onnx"))
    x = np.random.default_rng(5).normal(size=(100, 3, 6, 6)).astype(np.float32)
    wanted = _answer(tmp_path / "whole.onnx", x)
    errors = {}
    for repair in ("none", "mean", "least_squares"):
        made, path = _prune(tmp_path, model, data, repair, keep=0.6, multiple=1, repair=repair)
        errors[repair] = float(np.mean((_answer(path, x) - wanted) ** 2))
    assert errors["least_squares"] < errors["mean"] < errors["none"]
    assert all(item["after"] <= item["before"] + 1e-9 for item in made.facts["repair"].values())


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.lists(st.integers(0, 2), min_size=4, max_size=4),
    st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]),
)
def test_patches_times_matrix_is_the_convolution(size, strides, dilations, pads, mode):
    if mode != "NOTSET" and dilations != (1, 1):
        dilations = (1, 1)
    b = Builder(1)
    settings_ = {"pads": pads} if mode == "NOTSET" else {"auto_pad": mode}
    w = b.weights(5, 3, *size)
    x = b.node("Conv", "x", w, channels=5, kernel_shape=size, strides=strides, dilations=dilations, **settings_)
    model = b.model(x, rank=4)
    values = np.random.default_rng(0).normal(size=(2, 3, 6, 6)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), session_options(1))
    wanted = session.run(None, {"x": values})[0]
    channels = follow(model)
    (kernel,) = reading_kernels(channels)
    node = channels.prepared.graph.node[kernel.index]
    rows = patches(node, kernel, values, wanted.shape)
    np.testing.assert_allclose(
        rows @ matrix_of(channels.prepared, kernel).T, positions(node, wanted), rtol=0, atol=1e-4
    )


def test_one_dimensional_convolutions_are_pruned_and_repaired(tmp_path):
    b = Builder(0)
    b.channels["x"] = 2
    x = b.node("Conv", "x", b.weights(8, 2, 5), b.weights(8), channels=8, kernel_shape=[5], pads=[2, 2])
    x = b.node("Conv", b.node("Relu", x), b.weights(4, 8, 3), channels=4, kernel_shape=[3], strides=[2])
    model = b.model(x, rank=3)
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 2, 20]))
    folder = tmp_path / "data"
    folder.mkdir()
    values = np.random.default_rng(0).normal(size=(50, 2, 20)).astype(np.float32)
    write_dataset(folder, dict.fromkeys(SplitName, values), None, Preprocess(scale=1, mean=0, std=1))
    made, path = _prune(tmp_path, model, _input(folder, "dataset"), keep=0.6)
    assert made.facts["groups"][0]["after"] == 4
    assert _answer(path, values).shape == (50, 4, 9)
    assert next(use.shape for use in follow(model).map.uses) == LayerShape("conv", 2, 8, (1, 5), width=20)


def test_layers_are_listed_for_the_latency_table(tmp_path):
    onnx.save(random_graph(["depthwise"], "pooled", 1), str(tmp_path / "in.onnx"))
    context = StepContext(tmp_path, tmp_path, 3, lambda fraction, message: None)
    made = onnx_list.run(GeometrySettings(), {"onnx": _input(tmp_path / "in.onnx", "onnx")}, context)
    shapes = [LayerShape(**layer) for layer in json.loads(json.dumps(made.facts["layers"]))]
    assert [grid.geometry.kind for grid in measuring_plan(shapes)] == ["conv", "depthwise", "dense"]
