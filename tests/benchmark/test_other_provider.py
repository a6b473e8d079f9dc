import onnxruntime
import pytest

from edgemill.benchmark import BenchmarkSettings
from edgemill.benchmark.latency import run
from edgemill.errors import ToolchainError
from edgemill.recipe import Benchmark
from edgemill.runtimes import open_model
from edgemill.targets import load_target
from tests.runtimes import models

ELSEWHERE = "XnnpackExecutionProvider"
"""onnxruntime knows this name, does not have it in its wheels, and takes the CPU provider without an error."""


@pytest.fixture
def asked_elsewhere(monkeypatch):
    if ELSEWHERE in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has {ELSEWHERE}")
    monkeypatch.setattr("edgemill.runtimes.onnxruntime.PROVIDER", ELSEWHERE)


@pytest.mark.usefixtures("asked_elsewhere")
def test_a_runtime_that_answers_with_another_provider_is_refused(tmp_path):
    with pytest.raises(ToolchainError) as error:
        open_model(models.dense_onnx(tmp_path / "m.onnx"), "onnx")
    assert error.value.expected == ELSEWHERE
    assert error.value.got == "CPUExecutionProvider"


@pytest.mark.usefixtures("asked_elsewhere")
def test_and_nothing_is_measured_with_it(tmp_path):
    inputs = {
        "variant": models.input_file(models.dense_tflite(tmp_path / "v.tflite"), "tflite"),
        "baseline": models.input_file(models.dense_onnx(tmp_path / "b.onnx"), "onnx"),
        "data": models.input_file(models.dataset(tmp_path / "data", models.inputs(4)), "dataset"),
    }
    settings = BenchmarkSettings(benchmark=Benchmark(rounds=8), target=load_target("android-arm64"))
    with pytest.raises(ToolchainError) as error:
        run(settings, inputs, models.context(tmp_path / "run"))
    assert error.value.got == "CPUExecutionProvider"
