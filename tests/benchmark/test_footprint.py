import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemill.benchmark.arena import arena_of
from edgemill.benchmark.footprint import ColdStart, cold_start, memory, typical_start
from edgemill.benchmark.sizes import sizes
from edgemill.errors import ToolchainError
from tests.runtimes import models

MEGABYTE = 1 << 20


def saved(path, x):
    np.save(path, x)
    return path


def wide_onnx(path, width):
    """x -> width values -> one value: `width` float32 of activations a sample, few weights."""
    nodes = [
        helper.make_node("MatMul", ["x", "spread"], ["wide"]),
        helper.make_node("Erf", ["wide"], ["bent"]),
        helper.make_node("ReduceSum", ["bent"], ["y"], keepdims=1, axes=[1]),
    ]
    graph = helper.make_graph(
        nodes,
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
        [numpy_helper.from_array(np.ones((1, width), np.float32), "spread")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8), path)
    return path


def with_ballast(path, values):
    """The dense model with so many more float32 weights that are used."""
    model = onnx.load(models.dense_onnx(path))
    ballast = np.random.default_rng(0).normal(size=(models.CLASSES, values // models.CLASSES)).astype(np.float32)
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(ballast, "ballast"))
    graph.initializer.append(numpy_helper.from_array(np.float32(0), "zero"))
    graph.node[0].output[0] = "y1"
    for inputs, output, kind in (
        (["y1"], "y0", "ReduceMax"),
        (["ballast", "y0"], "ballast_p", "Mul"),
        (["ballast_p"], "unused", "ReduceSum"),
        (["unused", "zero"], "nothing", "Mul"),
        (["y1", "nothing"], "y", "Add"),
    ):
        options = {"keepdims": 0} if kind.startswith("Reduce") else {}
        graph.node.append(helper.make_node(kind, inputs, [output], **options))
    onnx.save(model, path)
    return ballast.nbytes


class TestPeak:
    def test_grows_with_the_weights_and_is_steady(self, tmp_path):
        batch = saved(tmp_path / "x.npy", models.inputs(1))
        small = models.dense_onnx(tmp_path / "small.onnx")
        large = tmp_path / "large.onnx"
        weight_bytes = with_ballast(large, 12_000_000)
        light = memory(small, "onnx", batch, threads=1)
        heavy = [memory(large, "onnx", batch, threads=1) for _ in range(2)]
        assert heavy[0].peak_rss_bytes - light.peak_rss_bytes >= weight_bytes
        assert light.peak_rss_bytes < 4 * MEGABYTE  # the interpreter, numpy and the runtime are not the model's
        assert abs(heavy[0].peak_rss_bytes - heavy[1].peak_rss_bytes) < 0.05 * heavy[0].peak_rss_bytes


class TestColdStart:
    def test_holds_all_that_happens_until_the_first_answer(self, tmp_path):
        batch = saved(tmp_path / "x.npy", models.inputs(1))
        found = cold_start(models.dense_tflite(tmp_path / "m.tflite"), "tflite", batch, threads=1)
        assert found.cold_start_ms > found.load_ms + found.first_inference_ms
        assert found.load_ms > 0
        assert found.first_inference_ms > 0

    def test_the_process_imports_what_a_device_imports(self, tmp_path, monkeypatch):
        """A module that is in the way of the pipeline is not in the way of a cold start."""
        for name in ("scipy", "prefect", "mlflow", "onnx", "tensorflow", "pandas"):
            (tmp_path / f"{name}.py").write_text("raise ImportError('not on a device')\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        batch = saved(tmp_path / "x.npy", models.inputs(1))
        assert cold_start(models.dense_tflite(tmp_path / "m.tflite"), "tflite", batch, threads=1).cold_start_ms > 0

    @pytest.mark.parametrize("ask", [cold_start, memory])
    def test_broken_file_is_an_error_with_its_name(self, tmp_path, ask):
        batch = saved(tmp_path / "x.npy", models.inputs(1))
        broken = tmp_path / "broken.onnx"
        broken.write_bytes(b"nothing")
        with pytest.raises(ToolchainError) as error:
            ask(broken, "onnx", batch, threads=1)
        assert str(broken) in str(error.value)

    def test_medians(self):
        starts = [ColdStart(cold_start_ms=ms, load_ms=10 - ms, first_inference_ms=1) for ms in (9.0, 1.0, 2.0)]
        assert typical_start(starts) == ColdStart(cold_start_ms=2.0, load_ms=8.0, first_inference_ms=1)


class TestArena:
    @pytest.mark.parametrize("width", [50_000, 200_000])
    def test_onnxruntime_tells_the_activations_and_not_the_weights(self, tmp_path, width):
        path = wide_onnx(tmp_path / "wide.onnx", width)
        size, source = arena_of("onnx", path, 1, np.ones((4, 1), np.float32))
        assert size is not None, source
        assert 4 * width * 4 <= size < 3 * 4 * width * 4
        assert "onnxruntime" in source

    def test_litert_counts_shared_memory_once(self, tmp_path):
        path = models.dense_tflite(tmp_path / "dense.tflite")
        found = {size: arena_of("tflite", path, 1, models.inputs(size))[0] for size in (16, 1600)}
        values = models.FEATURES + models.CLASSES
        for samples, size in found.items():
            assert size >= 4 * samples * values
        assert found[1600] < 4 * 1600 * values * 1.1 + 4096

    def test_is_asked_in_the_process_that_measures_memory(self, tmp_path):
        batch = saved(tmp_path / "x.npy", models.inputs(3))
        found = memory(models.dense_onnx(tmp_path / "m.onnx"), "onnx", batch, threads=1)
        assert found.arena_bytes is not None
        assert found.arena_source
        assert found.arena_bytes < MEGABYTE

    def test_a_runtime_that_breaks_off_takes_nothing_with_it(self, tmp_path, monkeypatch):
        """The process is killed while the arena is asked for; the rest has been told before."""
        (tmp_path / "sitecustomize.py").write_text(
            "import ctypes, os\nload = ctypes.CDLL\n"
            "ctypes.CDLL = lambda name, *more: os.kill(os.getpid(), 11) if name else load(name, *more)\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        batch = saved(tmp_path / "x.npy", models.inputs(1))
        found = memory(models.dense_onnx(tmp_path / "m.onnx"), "onnx", batch, threads=1)
        assert found.peak_rss_bytes > 0
        assert found.arena_bytes is None
        assert "-11" in found.arena_source


def test_sizes_are_of_the_content(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(100_000) + np.random.default_rng(0).bytes(10_000))
    found = sizes(path)
    assert found["size_bytes"] == 110_000
    assert 10_000 < found["compressed_bytes"] < 11_000
    assert 10_000 < found["transfer_bytes"] < 11_000
    assert sizes(path) == found
