import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from edgemill.artifact import TensorSpec, canonical_json
from edgemill.benchmark import SUSTAINED, SustainedSettings
from edgemill.benchmark.energy import Covers
from edgemill.benchmark.heat import Sensor, Sensors
from edgemill.benchmark.sustained import measure, record, run
from edgemill.benchmark.sustained_series import Recording, Window, load_series, save_series
from edgemill.benchmark.sustained_summary import summarize
from edgemill.commands.sustain import random_input, sustain
from edgemill.errors import DataError, RecipeError, ToolchainError
from edgemill.report.sustained_chart import sustained_svg
from edgemill.targets import load_target, provenance
from tests.benchmark.energy import trees
from tests.runtimes import models


def simulated(seconds, onset=None, idle_w=2.4):
    """A board: 1.5 ms a call, 5 W, and from `onset` on a third slower at a lower clock and 1.2 W less."""
    rng = np.random.default_rng(0)
    windows = []
    for second in range(seconds):
        slow = onset is not None and second >= onset
        latency = (2.0 if slow else 1.5) * math.exp(0.02 * rng.standard_normal())
        windows.append(
            Window(
                start_s=float(second),
                length_s=1.0,
                calls=500 if slow else 666,
                p50_ms=latency,
                p95_ms=1.2 * latency,
                temperature_c=45 + 35 * (1 - math.exp(-second / 80)),
                mhz=1800.0 if slow else 2400.0,
                joules=3.8 if slow else 5.0,
                taken=0.01,
            )
        )
    return Recording(windows, idle_w=idle_w)


class Meter:
    name, source, scope, covers, update_s = "simulated", "measured:simulated", "all", Covers.SYSTEM, 0.001


SENSORS = Sensors((Sensor("zone", lambda: 50.0),), (Sensor("clock", lambda: 2400.0),), True)


class TestSummary:
    def test_first_minute_and_steady_state_apart(self):
        facts = summarize(simulated(600, onset=200), SENSORS, Meter(), SustainedSettings(minutes=10))
        first, steady = facts["first_minute"], facts["steady_state"]
        assert (first["from_s"], first["to_s"]) == (0, 60)
        assert (steady["from_s"], steady["to_s"]) == (400, 600)
        assert first["p50_ms"] == pytest.approx(1.5, rel=0.02)
        assert steady["p50_ms"] == pytest.approx(2.0, rel=0.02)
        assert (first["mhz"], steady["mhz"]) == (2400, 1800)
        assert first["energy_mj"] == pytest.approx((5.0 - 2.4) / 666 * 1e3)
        assert steady["energy_mj"] == pytest.approx((3.8 - 2.4) / 500 * 1e3)
        assert steady["power_w"] == pytest.approx(3.8)
        assert steady["settled"]
        assert facts["throttle_onset_s"] == pytest.approx(200, abs=3)
        assert len(facts["throttle_evidence"]) == 2
        assert facts["energy_source"] == "measured:simulated"
        assert facts["sensors"] == {"temperature": ["zone"], "frequency": ["clock"], "energy": ["simulated"]}
        canonical_json(facts)

    def test_a_run_that_still_slows_down_is_not_settled(self):
        recording = simulated(180)
        windows = [
            Window(**(vars(window) | {"p50_ms": 1.5 * (1 + window.start_s / 200)})) for window in recording.windows
        ]
        facts = summarize(Recording(windows), SENSORS, None, SustainedSettings())
        assert not facts["steady_state"]["settled"]

    def test_short_runs_have_no_steady_state(self):
        facts = summarize(simulated(60), SENSORS, None, SustainedSettings(minutes=1))
        assert facts["steady_state"] is None
        assert "120 s" in facts["steady_state_missing"]
        assert facts["throttle_onset_s"] is None

    def test_few_long_calls(self):
        windows = [Window(100.0 * i, 100.0, 1, 1e5, 1e5, math.nan, math.nan, math.nan, math.nan) for i in range(2)]
        facts = summarize(Recording(windows), Sensors(), None, SustainedSettings())
        assert facts["steady_state"] is None
        assert facts["first_minute"]["energy_mj"] is None
        canonical_json(facts)

    def test_meter_that_failed_half_way(self):
        recording = simulated(180)
        recording.windows[90:] = [Window(**(vars(w) | {"joules": math.nan})) for w in recording.windows[90:]]
        recording.meter_error = "simulated: gone"
        facts = summarize(recording, SENSORS, Meter(), SustainedSettings())
        assert facts["first_minute"]["energy_mj"] == pytest.approx(2.6 / 666 * 1e3)
        assert facts["steady_state"]["energy_mj"] is None
        assert facts["sensors_missing"]["energy"] == "simulated: gone"

    def test_estimate_without_a_meter(self, monkeypatch):
        monkeypatch.setattr("platform.machine", lambda: "aarch64")
        target = load_target("raspberry-pi-5")
        settings = SustainedSettings(minutes=10, target=target, threads=4)
        facts = summarize(simulated(600, onset=200), SENSORS, None, settings)
        assert facts["energy_estimate_mj"] == pytest.approx(facts["steady_state"]["p50_ms"] * 6.1)
        assert facts["source"] == "measured:native"
        assert "energy_source" not in facts

    def test_a_clock_that_the_kernel_makes_up_is_no_sensor(self):
        constant = Sensors((), (Sensor("cpu0 cpuinfo", lambda: 2596.0),), clocks_follow=False)
        recording = simulated(60)
        facts = summarize(recording, constant, None, SustainedSettings())
        assert facts["first_minute"]["mhz"] is None
        assert facts["sensors"]["frequency"] == []
        assert "never changes" in facts["sensors_missing"]["frequency"]


class TestRecord:
    def test_windows_follow_each_other_and_hold_all_calls(self):
        calls = []
        recording = Recording([])
        told = []
        record(lambda: calls.append(time.sleep(0.002)), 0.5, 0.1, SENSORS, None, recording, lambda *a: told.append(a))
        assert len(recording.windows) >= 2
        assert sum(window.calls for window in recording.windows) == len(calls)
        starts = recording.column("start_s")
        ends = starts + recording.column("length_s")
        assert (starts[1:] >= ends[:-1]).all()
        assert (recording.column("p50_ms") >= 2).all()
        assert (recording.column("p95_ms") >= recording.column("p50_ms")).all()
        assert np.isnan(recording.column("joules")).all()
        assert [fraction for fraction, _ in told] == sorted(fraction for fraction, _ in told)
        assert len(told) == len(recording.windows)

    def test_a_call_longer_than_a_window_is_a_window(self):
        recording = Recording([])
        record(lambda: time.sleep(0.05), 0.12, 0.01, SENSORS, None, recording, lambda *_: None)
        assert {window.calls for window in recording.windows} == {1}

    def test_the_run_goes_on_without_its_meter(self):
        class Failing(Meter):
            left = 3

            def read(self):
                self.left -= 1
                if self.left < 0:
                    raise ToolchainError("The sensor went away.", got="ENODEV")
                return float(-self.left)

        recording = Recording([])
        record(lambda: time.sleep(0.002), 0.4, 0.05, SENSORS, Failing(), recording, lambda *_: None)
        joules = recording.column("joules")
        assert len(joules) > 4
        assert not np.isnan(joules[:2]).any()
        assert np.isnan(joules[2:]).all()
        assert "ENODEV" in recording.meter_error


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sustained")
    messages = []
    inputs = {
        "variant": models.input_file(models.dense_onnx(folder / "v.onnx"), "onnx"),
        "data": models.input_file(models.dataset(folder / "data", models.inputs(10)), "dataset"),
    }
    settings = SustainedSettings(minutes=0.05, batch=2, window_s=0.5, target=load_target("x86-64-vnni"))
    return settings, inputs, run(settings, inputs, models.context(folder / "run", messages)), messages


class TestBody:
    def test_it_takes_as_long_as_set(self, measured):
        facts = measured[2].facts
        assert facts["minutes"] >= 0.05
        assert facts["windows"] >= 2
        assert not facts["interrupted"]

    def test_the_file_is_what_the_facts_say(self, measured):
        facts, file = measured[2].facts, measured[2].files["series"].path
        recording = load_series(file)
        assert len(recording.windows) == facts["windows"]
        assert facts["first_minute"]["p50_ms"] == pytest.approx(np.median(recording.column("p50_ms")))
        assert facts["first_minute"]["calls"] == recording.column("calls").sum()
        assert [path.name for path in file.parent.iterdir()] == [file.name]

    def test_conditions_are_declared(self, measured):
        settings, _, outputs, _ = measured
        facts = outputs.facts
        assert facts["source"] == provenance(settings.target, os.uname().machine)
        assert (facts["threads"], facts["batch"], facts["runtime"]) == (1, 2, "onnxruntime")
        assert facts["change_point"]["rise"] > 0
        assert facts["meters_missing"] or facts["sensors"]["energy"]
        assert facts["host"]["cores"] > 0
        canonical_json(facts)

    def test_progress(self, measured):
        fractions = [fraction for fraction, _ in measured[3] if fraction is not None]
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0
        assert "median" in measured[3][-1][1]

    def test_batch_larger_than_the_data(self, measured, tmp_path):
        settings, inputs, _, _ = measured
        with pytest.raises(DataError) as error:
            run(settings.model_copy(update={"batch": 11}), inputs, models.context(tmp_path / "run"))
        assert error.value.where == "benchmark.batch"

    def test_energy_where_a_meter_is(self, measured, tmp_path):
        """A counter that a thread moves by 1 mJ a millisecond, wrapping on its way; idle and busy alike."""
        script = (
            "import sys, time\nfrom pathlib import Path\n"
            "file, span = Path(sys.argv[1]), int(sys.argv[2])\nscratch = file.with_name('scratch')\n"
            "start = time.monotonic()\n"
            "while True:\n"
            "    value = span - 4_000_000 + int((time.monotonic() - start) * 1e6)\n"
            "    scratch.write_text(f'{value % span}\\n'); scratch.rename(file); time.sleep(0.001)\n"
        )
        trees.powercap(tmp_path, {"intel-rapl:0": trees.RAPL_RANGE - 4_000_000})
        file = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
        mover = subprocess.Popen([sys.executable, "-c", script, str(file), str(trees.RAPL_RANGE)])
        try:
            recording = Recording([])
            settings = measured[0].model_copy(update={"minutes": 0.02})
            variant = measured[1]["variant"]
            facts = measure(variant.path, "onnx", models.inputs(2), settings, recording, lambda *_: None, tmp_path)
        finally:
            mover.kill()
            mover.wait()
        assert facts["energy_meter"] == "rapl-powercap"
        assert facts["idle_w"] == pytest.approx(1, rel=0.5)
        assert facts["first_minute"]["power_w"] == pytest.approx(1, rel=0.5)

    @pytest.mark.parametrize("keep", [True, False])
    def test_stopping_keeps_the_run_only_where_asked(self, measured, tmp_path, keep):
        """A half run must never be stored as the result of the step."""
        seen = []

        def report(fraction, message):
            seen.append(message)
            if len(seen) == 3:
                raise KeyboardInterrupt

        path = measured[1]["variant"].path
        settings = measured[0].model_copy(update={"window_s": 0.1})
        arguments = (path, "onnx", models.inputs(2), settings, Recording([]), report, tmp_path)
        if not keep:
            with pytest.raises(KeyboardInterrupt):
                measure(*arguments)
            return
        facts = measure(*arguments, keep_when_interrupted=True)
        assert facts["interrupted"]
        assert facts["windows"] == 3

    def test_time_limit_of_the_step_fits_the_longest_run(self):
        longest = SustainedSettings.model_json_schema()["properties"]["minutes"]["maximum"]
        assert SUSTAINED.time_limit_s > 60 * longest + 600


def test_series_survive_their_file(tmp_path):
    recording = simulated(5)
    save_series(tmp_path / "s.npz", recording)
    assert load_series(tmp_path / "s.npz").windows == recording.windows


class TestChart:
    def test_one_panel_for_every_thing_that_was_read(self):
        recording = simulated(600, onset=200)
        facts = summarize(recording, SENSORS, Meter(), SustainedSettings(minutes=10))
        text = sustained_svg(recording.columns(), facts, standalone=True)
        ElementTree.fromstring(text)
        for words in ("latency of one call", "processor, °C", "clock, MHz", "power, W (measured:simulated)"):
            assert words in text
        assert "throttling from 20" in text
        assert "minutes from the start" in text

    def test_what_could_not_be_read_has_no_panel(self):
        unknown = {"temperature_c": math.nan, "mhz": math.nan, "joules": math.nan}
        windows = [Window(**(vars(window) | unknown)) for window in simulated(30).windows]
        facts = summarize(Recording(windows), Sensors(), None, SustainedSettings())
        text = sustained_svg(Recording(windows).columns(), facts)
        ElementTree.fromstring(text)
        assert "latency of one call" in text
        assert "seconds from the start" in text
        for words in ("°C", "MHz", "power", "throttling from"):
            assert words not in text

    def test_gaps_and_constant_values(self):
        windows = [
            Window(**(vars(window) | {"p50_ms": 1.0, "p95_ms": 1.0, "temperature_c": math.nan if i % 2 else 50.0}))
            for i, window in enumerate(simulated(20).windows)
        ]
        facts = summarize(Recording(windows), SENSORS, None, SustainedSettings())
        text = sustained_svg(Recording(windows).columns(), facts)
        ElementTree.fromstring(text)
        assert "nan" not in text.lower()

    def test_long_runs_stay_small_files(self):
        recording = simulated(3600)
        facts = summarize(recording, SENSORS, Meter(), SustainedSettings(minutes=60))
        assert len(sustained_svg(recording.columns(), facts)) < 60_000

    def test_a_single_window_is_no_picture(self):
        recording = simulated(1)
        facts = summarize(recording, SENSORS, None, SustainedSettings())
        assert sustained_svg(recording.columns(), facts) == ""


class TestInput:
    def spec(self, dtype, shape, scale=None, zero_point=None):
        return TensorSpec(name="x", dtype=dtype, shape=shape, scale=scale, zero_point=zero_point)

    def test_is_the_same_every_time_and_fits(self):
        spec = self.spec("float32", (None, 8, 8, 1))
        first = random_input(spec, 3)
        assert (first.shape, first.dtype) == ((3, 8, 8, 1), np.float32)
        np.testing.assert_array_equal(first, random_input(spec, 3))
        assert random_input(self.spec("float32", (1, 4)), 3).shape == (1, 4)

    def test_quantized_input_uses_its_whole_range(self):
        x = random_input(self.spec("int8", (1, 10_000), 0.5, 3), 1)
        assert -65.5 <= x.min() < -60
        assert 58 < x.max() <= 62
        assert set(np.unique(random_input(self.spec("int64", (1, 50)), 1))) <= {0, 1}

    def test_free_size(self):
        with pytest.raises(RecipeError) as error:
            random_input(self.spec("float32", (None, None, 3)), 1)
        assert "--data" in error.value.remedy


@pytest.fixture
def slots(tmp_path, monkeypatch):
    """A slot of its own, so that the command does not wait for what else runs on this machine."""
    folder = tmp_path / "slots"
    folder.mkdir()
    monkeypatch.setattr("edgemill.benchmark.slots.slot_folder", lambda: folder)


@pytest.mark.usefixtures("slots")
class TestCommand:
    def call(self, *arguments):
        return CliRunner().invoke(sustain, [str(argument) for argument in arguments])

    def test_run_with_picture_and_values(self, tmp_path):
        model = models.dense_tflite(tmp_path / "m.tflite", "int8")
        chart, series = tmp_path / "c.svg", tmp_path / "s.npz"
        result = self.call(model, "--minutes", 0.05, "--chart", chart, "--series", series)
        assert result.exit_code == 0, result.output
        assert "first minute:" in result.stdout
        assert "not stated" in result.stdout
        assert "input random, seed 0" in result.stdout
        assert len(load_series(series).windows) >= 2
        ElementTree.parse(chart)

    def test_json_and_own_data(self, tmp_path):
        import json

        model = models.dense_onnx(tmp_path / "m.onnx")
        np.save(tmp_path / "x.npy", models.inputs(4).astype(np.float64))
        result = self.call(model, "--minutes", 0.01, "--data", tmp_path / "x.npy", "--batch", 4, "--json")
        assert result.exit_code == 0, result.output
        facts = json.loads(result.stdout)
        assert facts["batch"] == 4
        assert facts["input"].endswith("x.npy")
        assert facts["source"] == "measured:native"

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["none.onnx"], "no such model file"),
            (["model.pb"], "format is not known"),
            (["broken.onnx"], "cannot load"),
            (["m.onnx", "--data", "none.npy"], "cannot be read"),
            (["m.onnx", "--data", "text.npy"], "cannot be read"),
            (["m.onnx", "--data", "names.npy"], "no array of numbers"),
            (["m.onnx", "--data", "few.npy", "--batch", "5"], "fewer samples"),
            (["m.onnx", "--data", "wide.npy"], "shape of the model's input"),
            (["m.onnx", "--chart", "nowhere/c.svg"], "cannot be written"),
            (["m.onnx", "--target", "x86"], "Unknown target"),
            (["m.onnx", "--minutes", "0"], "0"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_bad_input(self, tmp_path, monkeypatch, arguments, words):
        monkeypatch.chdir(tmp_path)
        models.dense_onnx(Path("m.onnx"))
        Path("broken.onnx").write_bytes(b"nothing")
        Path("model.pb").write_bytes(b"nothing")
        Path("text.npy").write_text("1 2 3")
        np.save("names.npy", np.array(["a", "b"]))
        np.save("few.npy", models.inputs(2))
        np.save("wide.npy", np.zeros((2, 99), np.float32))
        result = self.call(*arguments)
        assert result.exit_code in (1, 2)
        assert isinstance(result.exception, SystemExit)
        assert words in result.output

    @staticmethod
    def wait_for_the_run(pid, seconds):
        """Wait until a process is pinned to its core, and has computed there for some seconds."""

        def computed():
            ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
            return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

        deadline = time.monotonic() + 120
        while len(os.sched_getaffinity(pid)) > 1 and time.monotonic() < deadline:
            time.sleep(0.1)
        start = computed()
        while computed() < start + seconds and time.monotonic() < deadline:
            time.sleep(0.1)

    @pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system cannot pin")
    def test_stopping_keeps_what_was_measured(self, tmp_path):
        import json

        model = models.dense_onnx(tmp_path / "m.onnx")
        series = tmp_path / "s.npz"
        code = (
            "import sys, tempfile; tempfile.tempdir = sys.argv.pop(1)\n"
            "from edgemill.commands.sustain import sustain\nsustain()\n"
        )
        arguments = [str(tmp_path), str(model), "--minutes", "30", "--json", "--series", str(series)]
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            self.wait_for_the_run(process.pid, seconds=3)
            process.send_signal(signal.SIGINT)
        except BaseException:
            process.kill()
            raise
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        facts = json.loads(output)
        assert facts["interrupted"]
        assert 0 < facts["minutes"] < 5
        assert len(load_series(series).windows) == facts["windows"]
