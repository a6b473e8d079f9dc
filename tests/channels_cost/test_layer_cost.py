"""Costs of layers: MACs and bytes are counted right, the latency table interpolates and travels as JSON."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemill.channels.cost import BytesCost, LatencyCost, LayerShape, MacsCost
from edgemill.channels.latency_measure import measured_arithmetic, run
from edgemill.channels.latency_steps import (
    GRANULE,
    Geometry,
    LayerGrid,
    LayerLatencySettings,
    channel_grid,
    channels_multiple,
    measuring_plan,
)
from edgemill.channels.latency_table import LatencyTable, Measured
from edgemill.channels.layer_onnx import onnx_layer
from edgemill.channels.layer_tflite import input_shape, tflite_layer
from edgemill.errors import InvariantError, StoreError
from edgemill.runtimes.onnxruntime import session_options
from edgemill.step import StepContext
from edgemill.targets.spec import Int8Arithmetic

X86 = Int8Arithmetic(activations="uint8", reduce_range=False)
ARM = Int8Arithmetic(activations="int8", reduce_range=False)

sizes = st.integers(1, 3)
shapes = st.builds(
    LayerShape,
    st.just("conv"),
    st.integers(1, 9),
    st.integers(1, 9),
    st.tuples(sizes, sizes),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.sampled_from(["same", "valid"]),
    st.integers(3, 9),
    st.integers(3, 9),
)


def _context(folder):
    (folder / "out").mkdir()
    return StepContext(folder / "out", folder, 0, lambda fraction, message: None)


def test_macs_and_bytes_of_known_layers():
    conv = LayerShape("conv", 24, 48, (3, 3), (2, 2), "same", 28, 28)
    assert MacsCost().layer(conv) == 14 * 14 * 9 * 24 * 48
    assert BytesCost().layer(conv) == 9 * 24 * 48 + 4 * 48
    depthwise = LayerShape("depthwise", 16, 16, (3, 3), (1, 1), "valid", 10, 10)
    assert MacsCost().layer(depthwise) == 8 * 8 * 9 * 16
    assert MacsCost().layer(LayerShape("dense", 192, 10)) == 1920
    assert MacsCost().layer(conv.with_channels(0, 48)) == 0


@settings(deadline=None, max_examples=25)
@given(shapes)
def test_output_size_is_what_both_runtimes_answer(shape):
    wanted = (1, shape.output_height, shape.output_width, shape.outputs)
    interpreter = Interpreter(model_content=tflite_layer(shape), num_threads=1)
    interpreter.allocate_tensors()
    assert tuple(interpreter.get_output_details()[0]["shape"]) == wanted
    session = onnxruntime.InferenceSession(onnx_layer(shape, X86), session_options(1))
    assert session.run(None, {"x": np.zeros(input_shape(shape), np.uint8)})[0].shape == wanted


def test_both_runtimes_run_the_layer_in_int8_and_nothing_else(tmp_path):
    shape = LayerShape("conv", 16, 16, (3, 3), height=8, width=8)
    for arithmetic in map(measured_arithmetic, (X86, ARM)):
        kind = np.dtype(str(arithmetic.activations))
        options = session_options(1)
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        session = onnxruntime.InferenceSession(onnx_layer(shape, arithmetic), options)
        assert session.run(None, {"x": np.full(input_shape(shape), 3, kind)})[0].dtype == kind
        assert [node.op_type for node in onnx.load(str(tmp_path / "optimized.onnx")).graph.node] == ["QLinearConv"]
    interpreter = Interpreter(model_content=tflite_layer(shape), num_threads=1)
    assert {item["dtype"] for item in interpreter.get_output_details()} == {np.int8}


@given(st.integers(1, 3000))
def test_grid_ends_at_the_count_and_stays_small(count):
    grid = channel_grid(count)
    assert max(grid) == count
    assert min(grid) > 0
    assert all(point == count or point % GRANULE == 0 for point in grid)
    assert len(grid) <= 32


def test_equal_geometries_share_a_grid():
    shape = LayerShape("conv", 32, 64, (3, 3), height=8, width=8)
    plan = measuring_plan([shape, shape.with_channels(48, 40), LayerShape("dense", 64, 10)])
    assert [grid.geometry.kind for grid in plan] == ["conv", "dense"]
    assert {32, 48} <= set(plan[0].inputs)
    assert {40, 64} <= set(plan[0].outputs)


def test_depthwise_has_one_axis():
    (grid,) = measuring_plan([LayerShape("depthwise", 24, 48, (3, 3), height=8, width=8)])
    assert grid.geometry.multiplier == 2
    assert all(after == 2 * before for before, after in grid.points())


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=5, unique=True).map(sorted),
    st.lists(st.integers(1, 300), min_size=1, max_size=5, unique=True).map(sorted),
    st.data(),
)
def test_table_answers_measured_points_exactly_and_stays_between_them(inputs, outputs, data):
    shape = LayerShape("conv", 1, 1, (3, 3), height=8, width=8)
    grid = LayerGrid(geometry=Geometry.of(shape), inputs=tuple(inputs), outputs=tuple(outputs))
    us = np.random.default_rng(0).uniform(0, 9, (len(inputs), len(outputs)))
    table = LatencyTable([Measured(grid, us, np.zeros_like(us))], "here", 0.0)
    for i, before in enumerate(inputs):
        for j, after in enumerate(outputs):
            assert table.microseconds(shape.with_channels(before, after)) == pytest.approx(us[i, j])
    before, after = data.draw(st.integers(1, inputs[-1])), data.draw(st.integers(1, outputs[-1]))
    assert us.min() - 1e-9 <= table.microseconds(shape.with_channels(before, after)) <= us.max() + 1e-9


def test_table_interpolates_bilinearly():
    shape = LayerShape("conv", 1, 1, height=4, width=4)
    grid = LayerGrid(geometry=Geometry.of(shape), inputs=(10, 20), outputs=(10, 20))
    table = LatencyTable([Measured(grid, np.array([[1.0, 3.0], [5.0, 9.0]]), np.zeros((2, 2)))], "here", 0.0)
    assert table.microseconds(shape.with_channels(15, 15)) == pytest.approx(4.5)
    assert LatencyCost(table).layer(shape.with_channels(0, 15)) == 0.0
    assert table.microseconds(shape.with_channels(3, 15)) == pytest.approx(2.0)


def test_table_names_what_it_lacks():
    shape = LayerShape("conv", 8, 8, height=4, width=4)
    grid = LayerGrid(geometry=Geometry.of(shape), inputs=(8,), outputs=(8,))
    table = LatencyTable([Measured(grid, np.ones((1, 1)), np.zeros((1, 1)))], "here", 0.0)
    with pytest.raises(InvariantError, match="does not reach"):
        table.microseconds(shape.with_channels(9, 8))
    with pytest.raises(InvariantError, match="no layer of this geometry"):
        table.microseconds(LayerShape("dense", 8, 8))


@pytest.mark.parametrize("runtime", ["onnxruntime", "ai-edge-litert"])
def test_step_measures_and_the_table_survives_the_file(tmp_path, runtime):
    shapes_ = [
        LayerShape("conv", 8, 16, (3, 3), (2, 2), "same", 8, 8),
        LayerShape("depthwise", 8, 8, (3, 3), (1, 1), "same", 8, 8),
        LayerShape("conv", 8, 8, (1, 5), (1, 2), "valid", 1, 30),
        LayerShape("dense", 16, 10, height=3),
    ]
    setting = LayerLatencySettings(runtime=runtime, int8=X86, layers=measuring_plan(shapes_))
    made = run(setting, {}, _context(tmp_path))
    table = LatencyTable.read(made.files["table"].path)
    assert made.facts["points"] == sum(len(grid.points()) for grid in setting.layers)
    assert all(0 <= table.microseconds(shape) < 1e5 for shape in shapes_)
    assert sum(table.microseconds(shape) for shape in shapes_) > 0
    table.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == made.files["table"].path.read_bytes()


@pytest.mark.parametrize("damage", ["", "[]", '{"layers": 3}', "null"])
def test_damaged_table_is_refused(tmp_path, damage):
    (tmp_path / "table.json").write_text(damage)
    with pytest.raises(StoreError):
        LatencyTable.read(tmp_path / "table.json")


def test_table_with_impossible_times_is_refused(tmp_path):
    grid = LayerGrid(geometry=Geometry.of(LayerShape("dense", 1, 1)), inputs=(8,), outputs=(8,))
    LatencyTable([Measured(grid, np.ones((1, 1)), np.zeros((1, 1)))], "here", 0.0).write(tmp_path / "t.json")
    record = json.loads((tmp_path / "t.json").read_text())
    record["layers"][0]["us"] = [[-1.0]]
    (tmp_path / "t.json").write_text(json.dumps(record))
    with pytest.raises(StoreError):
        LatencyTable.read(tmp_path / "t.json")


def test_multiple_of_unknown_runtime():
    assert channels_multiple("ai-edge-litert") == 16
    assert channels_multiple("something else") == 8
