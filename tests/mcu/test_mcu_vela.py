"""Vela: what runs on the NPU, what it costs by Vela's model, and what is refused."""

import pytest

from edgemill.compile.backend import backend_of
from edgemill.compile.route import Refusal
from edgemill.compile.vela_run import read_summary, reasons, run_vela
from edgemill.errors import RecipeError, ToolchainError
from edgemill.execute import release_workers
from edgemill.recipe import Scheme, parse_recipe
from edgemill.targets import load_target
from edgemill.toolchains import installed
from tests.mcu import mcu_models
from tests.support.ready import usable

TARGETS = ("ethos-u55-128", "ethos-u65-256", "ethos-u85-256")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    usable(TARGETS[0])
    yield mcu_models.Bench(tmp_path_factory.mktemp("bench"))
    release_workers()


@pytest.fixture
def python():
    usable(TARGETS[0])
    return installed("vela").python


def with_npu(name, **changes):
    target = load_target(name)
    return target.model_copy(update={"npu": target.npu.model_copy(update=changes)})


@pytest.mark.parametrize("name", TARGETS)
class TestEveryNpu:
    def test_all_of_an_int8_model_runs_on_it(self, bench, tmp_path, name):
        target, source = load_target(name), mcu_models.dense(tmp_path / "m.tflite", widths=(64, 10))
        record = bench.compile(target, source)
        facts, model = record.facts, record.outputs["model"]
        assert (facts["npu_share"], facts["cpu_operators"], facts["command_streams"]) == (1.0, [], 1)
        assert model.kind == "vela"
        assert b"ethos-u" in bench.bytes_of(model)
        assert model.signature.inputs[0].dtype == "int8"

    def test_figures_of_the_device(self, bench, tmp_path, name):
        target = load_target(name)
        small, large = (
            bench.compile(target, mcu_models.dense(tmp_path / f"{width}.tflite", widths=(width, 10))).facts
            for width in (64, 4000)
        )
        device = large["device"]
        assert device["source"] == "simulated:vela"
        assert device["latency_ms"] == pytest.approx(1e3 * device["cycles"] / target.npu.clock_hz)
        assert device["cycles"] > small["device"]["cycles"]
        assert device["ram_bytes"] > small["device"]["ram_bytes"]
        assert device["flash_bytes"] == large["size_bytes"] > small["size_bytes"]
        assert device["npu_share"] == 1
        assert any("not measured" in note for note in device["notes"])

    def test_the_source_answers_in_the_interpreter(self, bench, tmp_path, name):
        target, source = usable(name), mcu_models.dense(tmp_path / "m.tflite")
        record = bench.compile(target, source)
        executable = record.outputs["executable"]
        assert executable.kind == "tflite-micro"
        assert bench.bytes_of(executable) == source.read_bytes()
        predicted, answers = bench.answers(target, record)
        assert predicted.facts["source"] == "simulated:tflite-micro"
        assert answers.shape == (96, 10)

    def test_floats_are_refused_though_vela_says_nothing(self, bench, tmp_path, name):
        with pytest.raises(ToolchainError, match="Too little") as error:
            bench.compile(load_target(name), mcu_models.dense(tmp_path / "m.tflite", numbers="float32"))
        assert error.value.got.startswith("0% of 2 operators; left to the CPU: FULLY_CONNECTED (2)")
        assert "Float32" in error.value.got
        assert "90%" in error.value.expected

    @pytest.mark.parametrize("scheme", [None, Scheme.FP16, Scheme.INT8_DYNAMIC])
    def test_floats_are_refused_before_anything_is_made(self, name, scheme):
        target = load_target(name)
        recipe = parse_recipe(
            {
                "name": "test",
                "checkpoint": {"path": "model.keras"},
                "data": {"source": "npz", "path": "data.npz", "split": {"validation": 10}},
            }
        )
        found = backend_of(target).route(scheme, {"keras"}, target, recipe)
        assert isinstance(found, Refusal)
        assert "integers only" in found.reason
        assert (scheme or "fp32") in found.reason


def test_operators_that_are_left_to_the_cpu_are_named(bench, tmp_path):
    source = mcu_models.dense(tmp_path / "m.tflite", last="L2_NORMALIZATION")
    with pytest.raises(ToolchainError) as error:
        bench.compile(load_target("ethos-u55-128"), source)
    assert "67% of 3 operators; left to the CPU: L2_NORMALIZATION (1)" in error.value.got
    facts = bench.compile(with_npu("ethos-u55-128", min_npu_share=0.5), source).facts
    assert facts["cpu_operators"] == facts["device"]["cpu_operators"] == ["L2_NORMALIZATION"]
    assert facts["npu_share"] == pytest.approx(2 / 3)
    assert any("left to the CPU" in note for note in facts["device"]["notes"])


def test_nothing_on_the_npu_is_refused_whatever_share_is_asked_for(bench, tmp_path):
    with pytest.raises(ToolchainError, match="Too little"):
        bench.compile(
            with_npu("ethos-u55-128", min_npu_share=0.0),
            mcu_models.dense(tmp_path / "m.tflite", numbers="float32"),
        )


def test_same_input_gives_the_same_bytes(tmp_path, python):
    source, npu = mcu_models.dense(tmp_path / "m.tflite"), load_target("ethos-u85-256").npu
    folders = [tmp_path / "one", tmp_path / "two"]
    first, second = (run_vela(python, source, npu, folder).file.read_bytes() for folder in folders)
    assert first == second


class TestFailures:
    @pytest.mark.parametrize("content", [b"", b"hello" * 100, b"TFL3" * 50])
    def test_garbage_is_one_clear_error(self, tmp_path, python, content):
        path = tmp_path / "garbage.tflite"
        path.write_bytes(content)
        with pytest.raises(ToolchainError, match="Vela failed") as error:
            run_vela(python, path, load_target("ethos-u55-128").npu, tmp_path / "out")
        assert error.value.where == str(path)
        assert "last words" in error.value.got

    def test_a_crash_is_one_clear_error(self, tmp_path, python):
        path = mcu_models.dense(tmp_path / "m.tflite", widths=(64, 10))
        path.write_bytes(path.read_bytes()[:1500])
        with pytest.raises(ToolchainError, match="Vela failed"):
            run_vela(python, path, load_target("ethos-u55-128").npu, tmp_path / "out")

    def test_a_hang_is_ended(self, tmp_path, python):
        source = mcu_models.dense(tmp_path / "m.tflite")
        with pytest.raises(ToolchainError, match="did not come to an end") as error:
            run_vela(python, source, load_target("ethos-u55-128").npu, tmp_path / "out", limit_s=0.01)
        assert error.value.expected == "at most 0.01 s"

    def test_an_unknown_system_configuration_is_named(self, tmp_path, python):
        source, npu = mcu_models.dense(tmp_path / "m.tflite"), with_npu("ethos-u55-128", system_config="Nope").npu
        with pytest.raises(ToolchainError) as error:
            run_vela(python, source, npu, tmp_path / "out")
        assert "Nope" in error.value.got

    def test_the_system_of_another_npu_is_refused(self, tmp_path, python):
        """Vela would take it without a word."""
        source = mcu_models.dense(tmp_path / "m.tflite")
        npu = with_npu("ethos-u55-128", system_config="Ethos_U65_High_End", clock_hz=1e9).npu
        with pytest.raises(RecipeError, match="another NPU") as error:
            run_vela(python, source, npu, tmp_path / "out")
        assert error.value.got == "Ethos_U65_High_End"

    def test_a_clock_that_the_system_does_not_have_is_refused(self, tmp_path, python):
        source, npu = mcu_models.dense(tmp_path / "m.tflite"), with_npu("ethos-u55-128", clock_hz=4e8).npu
        with pytest.raises(RecipeError, match="clock") as error:
            run_vela(python, source, npu, tmp_path / "out")
        assert error.value.got == "4e+08"
        assert "2e+08" in error.value.expected

    @pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "cycles_total\nmany\n", "\x00"])
    def test_a_summary_of_another_form_is_refused(self, tmp_path, text):
        path = tmp_path / "summary.csv"
        path.write_text(text)
        with pytest.raises(ToolchainError, match="summary cannot be read"):
            read_summary(path)


def test_reasons_are_read_without_names_of_tensors():
    told = (
        "\nWarning (supported operators) operator: RELU, ofm: 'a/b;c'\n"
        "Reason: Operation has tensor with unsupported DataType Float32 (a/b;c)\n"
        'Feature-map dataTypes must be one of {"INT8"}\n\n'
        "Warning (supported operators) operator: RELU, ofm: 'd'\nReason: another\n\nNetwork summary\n"
    )
    assert reasons(told) == {
        "RELU": 'Operation has tensor with unsupported DataType Float32; Feature-map dataTypes must be one of {"INT8"}'
    }
