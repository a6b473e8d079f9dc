"""The calibration samples' way through a graph: its memory, and the ranges found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgemill.data.dataset import Dataset, SplitName, write_dataset
from edgemill.errors import DataError
from edgemill.quantize.calibrate import find_ranges, plan_calibration
from edgemill.quantize.calibrators.activations import Activations
from edgemill.quantize.calibrators.extremes import Range
from edgemill.quantize.calibrators.memory import estimate_bytes, plan
from edgemill.recipe import Calibration, Preprocess


class TestPlan:
    sizes = st.lists(st.integers(1, 10_000), min_size=1, max_size=20).map(
        lambda items: {f"t{index}": size for index, size in enumerate(items)}
    )

    @settings(deadline=None)
    @given(sizes, st.integers(1, 64), st.integers(0, 1 << 20), st.integers(0, 20_000), st.integers(1, 1 << 25))
    def test_holds_every_tensor_once_and_the_budget_if_it_can(
        self, sizes: dict[str, int], most: int, model: int, state: int, budget: int
    ) -> None:
        made = plan(sizes, most, model, state, budget)
        assert [name for group in made.groups for name in group] == list(sizes)
        assert 1 <= made.batch_size <= most
        single = max(estimate_bytes(sizes, size, 1, model, state * len(sizes)) for size in sizes.values())
        assert made.fits or single > budget
        if len(made.groups) > 1:
            assert made.batch_size == 1
            assert estimate_bytes(sizes, sum(sizes.values()), 1, model, state * len(sizes)) > budget

    def test_a_smaller_budget_takes_smaller_batches_then_more_passes(self) -> None:
        sizes = {f"t{index}": 1 << 20 for index in range(10)}
        made = [plan(sizes, 32, 0, 0, budget << 20) for budget in (1000, 100, 28, 23)]
        assert [one.batch_size for one in made] == [32, 4, 1, 1]
        assert [len(one.groups) for one in made] == [1, 1, 2, 10]
        assert all(one.fits for one in made)


def network(folder: Path, width: int = 4) -> Path:
    """Convolution, ReLU, dense, on 6 x 6 images; the input goes through a node of its own."""
    rng = np.random.default_rng(0)
    weights = {
        "kernel": rng.normal(size=(width, 1, 3, 3)).astype(np.float32),
        "dense": rng.normal(size=(16 * width, 5)).astype(np.float32),
        "flat_shape": np.array([0, -1], np.int64),
        "to_channels": np.array([0, 1, 6, 6], np.int64),
    }
    nodes = [
        helper.make_node("Reshape", ["x", "to_channels"], ["planes"], name="planes"),
        helper.make_node("Conv", ["planes", "kernel"], ["conv"], name="conv"),
        helper.make_node("Relu", ["conv"], ["relu"], name="relu"),
        helper.make_node("Reshape", ["relu", "flat_shape"], ["flat"], name="flat"),
        helper.make_node("MatMul", ["flat", "dense"], ["y"], name="y"),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 6, 6, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    path = folder / "network.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def dataset(folder: Path, x: np.ndarray) -> Dataset:
    folder.mkdir()
    write_dataset(folder, dict.fromkeys(SplitName, x[:1]) | {SplitName.CALIBRATION: x}, None, Preprocess())
    return Dataset(folder)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(count, 6, 6, 1)).astype(np.float32)


def calibrated(path: Path, data: Dataset, method: Calibration, batch_size: int = 32, memory: int = 1 << 30) -> Any:
    told: list[tuple[float | None, str]] = []
    how = plan_calibration(path, data, method, batch_size, memory)
    ranges = find_ranges(path, data, method, 99.0, how, lambda fraction, text: told.append((fraction, text)))
    return ranges, how, told


class TestFindRanges:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return network(tmp_path)

    def test_minmax_is_that_of_the_activations(self, path: Path, tmp_path: Path) -> None:
        x = images(70)
        ranges, _, told = calibrated(path, dataset(tmp_path / "data", x), Calibration.MINMAX)
        model = onnx.load(str(path))
        model.graph.output.append(helper.make_tensor_value_info("conv", TensorProto.FLOAT, None))
        y, conv = onnxruntime.InferenceSession(model.SerializeToString()).run(["y", "conv"], {"x": x})
        assert set(ranges) == {"x", "planes", "conv", "relu", "flat", "y"}
        assert ranges["x"] == (float(x.min()), float(x.max()))
        assert ranges["conv"] == pytest.approx((float(conv.min()), float(conv.max())), rel=1e-5)
        assert ranges["y"] == pytest.approx((float(y.min()), float(y.max())), rel=1e-5)
        assert ranges["relu"] == ranges["flat"] == (0.0, ranges["conv"][1])
        fractions = [fraction for fraction, _ in told]
        assert fractions == sorted(fractions)
        assert fractions[-1] == 0.8
        assert "70 of 70" in told[-1][1]

    @pytest.mark.parametrize("method", list(Calibration))
    def test_does_not_depend_on_batches_or_passes(self, path: Path, tmp_path: Path, method: Calibration) -> None:
        data = dataset(tmp_path / "data", images(50))
        whole, _, _ = calibrated(path, data, method, batch_size=50)
        sizes = Activations(path).sample_bytes(data.features(SplitName.CALIBRATION, 0, 1))
        assert sizes == {"x": 144, "planes": 144, "conv": 256, "relu": 256, "flat": 256, "y": 20}
        for batch_size in (1, 7, 32):
            assert_close(calibrated(path, data, method, batch_size)[0], whole)
        small, how, told = calibrated(path, data, method, memory=1)
        assert len(how.groups) == len(sizes)
        assert not how.fits
        assert "pass 6 of 6" in told[-1][1]
        assert_close(small, whole)
        assert calibrated(path, data, method, batch_size=50)[0] == whole

    def test_an_infinite_weight_is_named(self, tmp_path: Path) -> None:
        path = network(tmp_path)
        model = onnx.load(str(path))
        kernel = numpy_helper.to_array(model.graph.initializer[0]).copy()
        kernel[0, 0, 1, 1] = np.inf
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel, "kernel"))
        onnx.save(model, str(path))
        with pytest.raises(DataError, match="not finite") as caught:
            calibrated(path, dataset(tmp_path / "data", images(5)), Calibration.MINMAX)
        assert "conv" in str(caught.value.where)
        assert "planes" not in str(caught.value.where)

    @pytest.mark.parametrize("method", list(Calibration))
    def test_one_nan_in_one_sample_is_found(self, path: Path, tmp_path: Path, method: Calibration) -> None:
        x = images(40)
        x[33, 2, 2, 0] = np.nan
        with pytest.raises(DataError, match="not finite"):
            calibrated(path, dataset(tmp_path / "data", x), method)

    def test_an_empty_split_is_refused(self, path: Path, tmp_path: Path) -> None:
        folder = tmp_path / "data"
        folder.mkdir()
        x = images(1)
        write_dataset(folder, dict.fromkeys(SplitName, x) | {SplitName.CALIBRATION: x[:0]}, None, Preprocess())
        with pytest.raises(DataError, match="split is empty"):
            calibrated(path, Dataset(folder), Calibration.MINMAX)

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
    def test_memory_does_not_grow_with_the_samples(self, tmp_path: Path) -> None:
        path = network(tmp_path, width=64)
        data = dataset(tmp_path / "few", images(100)), dataset(tmp_path / "many", images(6400))
        sizes = Activations(path).sample_bytes(data[0].features(SplitName.CALIBRATION, 0, 1))
        command = [sys.executable, "-c", PEAKS, str(path), str(tmp_path / "few"), str(tmp_path / "many")]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
        few, many = map(int, done.stdout.split())
        assert many - few < 0.05 * 6300 * sum(sizes.values())


PEAKS = """
import sys
from pathlib import Path
from edgemill.data.dataset import Dataset
from edgemill.quantize.calibrate import find_ranges, plan_calibration
from edgemill.recipe import Calibration

path = Path(sys.argv[1])
for folder in sys.argv[2:]:
    data = Dataset(Path(folder))
    for method in Calibration:
        how = plan_calibration(path, data, method, 32, 1 << 30)
        find_ranges(path, data, method, 99.0, how, lambda fraction, message: None)
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")))
"""


def assert_close(found: dict[str, Range], expected: dict[str, Range]) -> None:
    """Equal up to a bin: matrix products of another batch size round differently in the last place."""
    assert found.keys() == expected.keys()
    for name, (low, high) in expected.items():
        assert found[name] == pytest.approx((low, high), abs=(high - low) / 500)
