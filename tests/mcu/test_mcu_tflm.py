"""TensorFlow Lite Micro: the adapter in its own environment, and the compile step."""

import numpy as np
import pytest

from edgemill.compile import CompileSettings
from edgemill.compile.backend import backend_of
from edgemill.compile.route import Refusal
from edgemill.errors import ToolchainError
from edgemill.execute import release_workers
from edgemill.recipe import Scheme, parse_recipe
from edgemill.runtimes import open_model
from edgemill.targets import load_target
from edgemill.toolchains import load_toolchain
from tests.mcu import mcu_models
from tests.mcu.remote import Remote
from tests.runtimes import models
from tests.runtimes import test_runtimes as template
from tests.support.ready import usable

TARGET = "cortex-m-tflm"


@pytest.fixture(scope="module")
def remote():
    usable(TARGET)
    with Remote("tflm") as process:
        yield process


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    usable(TARGET)
    yield mcu_models.Bench(tmp_path_factory.mktemp("bench"))
    release_workers()


@pytest.fixture
def target():
    return load_target(TARGET)


class TestAdapter(template.RuntimeContract):
    """What every runtime must do; here in the environment of the toolchain."""

    kind = "tflite-micro"
    distribution = "tflite-micro"

    @pytest.fixture(autouse=True)
    def _in_its_environment(self, remote, monkeypatch):
        self.remote = remote
        monkeypatch.setattr(template, "open_model", remote.open_model)

    def dense(self, folder, batch=None):
        return models.dense_tflite(folder / "dense.tflite", batch=batch)

    def dense_integer(self, folder):
        return models.dense_tflite(folder / "integer.tflite", "int8")

    def test_free_batch_in_the_signature(self, tmp_path):
        """There are no free sizes on a microcontroller: the batch is the file's own."""
        signature = self.remote.open_model(self.dense(tmp_path), self.kind).signature
        assert signature.inputs[0].shape == (1, models.FEATURES)
        assert signature.outputs[0].shape == (1, models.CLASSES)
        assert signature.inputs[0].dtype == "float32"
        assert signature.inputs[0].scale is None

    def test_version_is_that_of_the_distribution(self):
        runtime = self.remote.runtime_of(self.kind)
        assert {self.distribution: runtime.version()} == load_toolchain("tflm").versions((self.distribution,))
        assert (runtime.name, runtime.kinds) == (self.distribution, (self.kind,))

    def test_does_not_import_tensorflow(self, tmp_path):
        self.remote.open_model(self.dense(tmp_path), self.kind)
        loaded = self.remote.ask(do="modules")["modules"]
        assert "tflite_micro" in loaded
        assert not {"tensorflow", "tf_keras", "onnx", "torch"}.intersection(loaded)

    def test_custom_operator_is_refused(self, tmp_path):
        path = models.dense_tflite(tmp_path / "custom.tflite", custom="Mystery")
        with pytest.raises(ToolchainError, match="cannot load") as error:
            self.remote.open_model(path, self.kind)
        assert "CUSTOM" in error.value.got

    def test_dynamic_range_is_refused_with_its_cause(self, tmp_path):
        path = mcu_models.dense(tmp_path / "hybrid.tflite", numbers="hybrid")
        assert open_model(path, "tflite").predict(mcu_models.samples(3)).shape == (3, 10)
        with pytest.raises(ToolchainError) as error:
            self.remote.open_model(path, self.kind)
        assert "FLOAT32 with filter type: INT8" in error.value.got
        assert "hybrid" in error.value.expected
        assert "int8_static" in error.value.remedy

    def test_a_model_larger_than_the_first_arena_loads(self, tmp_path):
        path = mcu_models.dense(tmp_path / "wide.tflite", widths=(400_000, 2), numbers="float32")
        assert self.remote.open_model(path, self.kind).predict(mcu_models.samples(1)).shape == (1, 2)


class TestCompile:
    def test_file_is_unchanged_and_named_int8(self, bench, target, tmp_path):
        source = mcu_models.dense(tmp_path / "m.tflite")
        record = bench.compile(target, source)
        model = record.outputs["model"]
        assert model.kind == "tflite-micro"
        assert bench.bytes_of(model) == source.read_bytes()
        assert model.signature.inputs[0].dtype == model.signature.outputs[0].dtype == "int8"
        assert model.signature.inputs[0].scale == pytest.approx(0.031)

    def test_figures_of_the_device(self, bench, target, tmp_path):
        facts = bench.compile(target, mcu_models.dense(tmp_path / "m.tflite")).facts
        device = facts["device"]
        assert device["source"] == "simulated:tflite-micro"
        assert device["ram_bytes"] == facts["arena_bytes"] == facts["arena_head_bytes"] + facts["arena_tail_bytes"]
        assert device["flash_bytes"] == facts["size_bytes"]
        assert device["latency_ms"] is None
        assert any("64 bits" in note for note in device["notes"])
        assert any("code of the interpreter" in note for note in device["notes"])

    def test_arena_grows_with_the_model(self, bench, target, tmp_path):
        narrow, wide = (
            bench.compile(target, mcu_models.dense(tmp_path / f"{width}.tflite", widths=(width, 10))).facts
            for width in (24, 3000)
        )
        assert wide["arena_head_bytes"] - narrow["arena_head_bytes"] == pytest.approx(3000 - 24, abs=64)
        assert wide["size_bytes"] > narrow["size_bytes"]

    def test_the_arena_is_enough_and_no_more(self, bench, remote, target, tmp_path):
        path = mcu_models.dense(tmp_path / "m.tflite", widths=(400, 10))
        total = bench.compile(target, path).facts["arena_bytes"]
        script = (
            "import sys; from tflite_micro import runtime\n"
            "def fits(size):\n"
            "    try:\n"
            "        runtime.Interpreter.from_file(sys.argv[1], arena_size=size).invoke()\n"
            "    except RuntimeError:\n"
            "        return False\n"
            "    return True\n"
            "print(fits(int(sys.argv[2])), fits(int(sys.argv[2]) - 64))"
        )
        assert remote.run(script, path, total).split() == ["True", "False"]

    def test_one_scale_for_all_channels(self, bench, target, tmp_path):
        facts = bench.compile(target, mcu_models.dense(tmp_path / "m.tflite", widths=(64, 32, 10))).facts
        assert facts["compared"] == 64
        assert facts["bit_equal"] + facts["rounded_otherwise"] / 64 == 1
        assert facts["op_counts"] == {"FULLY_CONNECTED": 3}

    @pytest.mark.parametrize("per_channel", [False, True])
    @pytest.mark.parametrize("fused", [None, "RELU", "RELU_N1_TO_1"])
    def test_answers_differ_from_litert_by_the_rounding_of_dense_layers_alone(
        self, bench, target, tmp_path, per_channel, fused
    ):
        """Wide enough that some of 64 samples lie almost between two integers."""
        path = mcu_models.dense(tmp_path / "m.tflite", widths=(900,), per_channel=per_channel, fused=fused)
        record = bench.compile(target, path)
        facts = record.facts
        assert facts["rounded_otherwise"] > 0
        assert facts["bit_equal"] == 1 - facts["rounded_otherwise"] / facts["compared"]
        step = record.outputs["model"].signature.outputs[0].scale
        _, answers = bench.answers(target, record)
        reference = open_model(path, "tflite").predict(bench.x)
        assert 0 < np.abs(answers - reference).max() <= 1.01 * step

    def test_another_difference_is_a_fault(self, remote, tmp_path):
        """The reference reads a file with other weights: as a broken kernel would, it gives other integers."""
        ours = mcu_models.dense(tmp_path / "ours.tflite", widths=(24, 10))
        other = mcu_models.dense(tmp_path / "other.tflite", widths=(24, 10), seed=5)
        np.save(tmp_path / "x.npy", mcu_models.samples(8))
        script = (
            "import sys, numpy as np; from pathlib import Path; from edgemill.compile import tflm_exact as exact\n"
            "from edgemill.errors import ToolchainError\n"
            "reference = exact._Reference\n"
            "exact._Reference = lambda path: reference(Path(sys.argv[2]))\n"
            "try:\n"
            "    exact.compare_exactly(Path(sys.argv[1]), np.load(sys.argv[3]))\n"
            "except ToolchainError as error:\n"
            "    print(error.got)"
        )
        assert "FULLY_CONNECTED 0" in remote.run(script, ours, other, tmp_path / "x.npy")

    def test_predictions_come_from_the_interpreter(self, bench, target, tmp_path):
        record = bench.compile(target, mcu_models.dense(tmp_path / "m.tflite"))
        predicted, answers = bench.answers(target, record)
        assert predicted.facts["source"] == "simulated:tflite-micro"
        assert answers.shape == (96, 10)
        assert len(np.unique(answers)) > 20

    @pytest.mark.parametrize("numbers", ["float32", "hybrid"])
    def test_floats_are_refused(self, bench, target, tmp_path, numbers):
        with pytest.raises(ToolchainError) as error:
            bench.compile(target, mcu_models.dense(tmp_path / "m.tflite", numbers=numbers))
        assert ("filter type: INT8" if numbers == "hybrid" else "FULLY_CONNECTED 0") in error.value.got
        assert "int8_static" in error.value.remedy

    def test_garbage_is_one_clear_error(self, bench, target, tmp_path):
        path = tmp_path / "garbage.tflite"
        path.write_bytes(b"TFL3" * 50)
        with pytest.raises(ToolchainError, match="no TFLite model"):
            bench.compile(target, path)


def test_dynamic_range_is_refused_before_anything_is_made(target):
    recipe = parse_recipe(
        {
            "name": "test",
            "checkpoint": {"path": "model.keras"},
            "data": {"source": "npz", "path": "data.npz", "split": {"validation": 10}},
        }
    )
    found = backend_of(target).route(Scheme.INT8_DYNAMIC, {"keras"}, target, recipe)
    assert isinstance(found, Refusal)
    assert "hybrid" in found.reason
    assert "int8_static" in found.remedy
    assert CompileSettings(target=target).target.formats == ("int8_static", "int8_qat")
