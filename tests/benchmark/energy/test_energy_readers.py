import os
import platform
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemill.benchmark.energy import (
    Covers,
    battery,
    find_meters,
    hwmon,
    jetson,
    nvml,
    rapl_perf,
    rapl_powercap,
    raspberry_pi,
)
from edgemill.benchmark.energy.find import choose
from edgemill.benchmark.energy.meter import Counter, PowerMeter
from edgemill.benchmark.energy.sysfs import indices
from edgemill.errors import ToolchainError
from tests.benchmark.energy import trees


def only(found):
    assert len(found.meters) == 1, found.unusable
    return found.meters[0]


def reason(found):
    assert found.meters == ()
    return " ".join(item.reason for item in found.unusable)


class TestCounter:
    @given(
        start=st.integers(0, trees.RAPL_RANGE - 1),
        steps=st.lists(st.integers(0, trees.RAPL_RANGE - 1), max_size=50),
    )
    def test_wrapping_loses_nothing(self, start, steps):
        position = start
        counter = Counter(lambda: position % trees.RAPL_RANGE, 1e-6, trees.RAPL_RANGE, "test")
        before = 0.0
        for step in steps:
            position += step
            now = counter.joules()
            assert now >= before
            before = now
        assert before == pytest.approx(sum(steps) * 1e-6)

    def test_a_counter_without_a_range_never_runs_backwards(self):
        values = iter([100, 150, 20])
        counter = Counter(lambda: next(values), 1.0, None, "some counter")
        assert counter.joules() == 50
        with pytest.raises(ToolchainError) as error:
            counter.joules()
        assert error.value.where == "some counter"


class TestPowerMeter:
    def make(self, samples):
        """Samples are (second, watts), one a read."""
        script = iter(samples)
        now = []

        def watts():
            moment, value = next(script)
            now[:] = [moment]
            return value

        return PowerMeter("m", "measured:m", "", Covers.SYSTEM, 1.0, watts, clock=lambda: now[0], sampling=False)

    def test_trapezoids(self):
        meter = self.make([(10, 2.0), (11, 4.0), (14, 4.0), (14.5, 0.0)])
        assert [meter.read() for _ in range(4)] == [0.0, 3.0, 15.0, 16.0]

    def test_the_thread_sees_what_happens_between_reads(self):
        level = [1.0]
        meter = PowerMeter("m", "measured:m", "", Covers.SYSTEM, 0.01, lambda: level[0])
        try:
            start, moment = meter.read(), time.monotonic()
            level[0] = 101.0
            time.sleep(0.3)
            level[0] = 1.0
            spent, seconds = meter.read() - start, time.monotonic() - moment
        finally:
            meter.close()
        # Two samples, at the ends alone, would give 1 W.
        assert spent > 10 * seconds

    def test_a_sensor_that_fails_in_the_thread_fails_the_next_read(self):
        values = iter([1.0])

        def watts():
            try:
                return next(values)
            except StopIteration:
                raise ToolchainError("gone") from None

        meter = PowerMeter("m", "measured:m", "", Covers.SYSTEM, 0.01, watts)
        meter.read()
        thread = next(thread for thread in threading.enumerate() if thread.name == "meter m")
        thread.join(5)
        with pytest.raises(ToolchainError, match="gone"):
            meter.read()
        meter.close()

    def test_closing_ends_the_thread(self):
        meter = PowerMeter("closed one", "measured:m", "", Covers.SYSTEM, 5.0, lambda: 1.0)
        meter.read()
        meter.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "meter closed one"]


class TestPowercap:
    def test_packages_and_memory_are_added_and_nothing_twice(self, tmp_path):
        trees.powercap(tmp_path, {})
        meter = only(rapl_powercap.find(tmp_path))
        trees.powercap(
            tmp_path,
            {
                "intel-rapl:0": 5_000_000,
                "intel-rapl:0:0": 4_000_000,
                "intel-rapl:0:1": 300_000,
                "intel-rapl:1": 2_000_000,
                "intel-rapl:1:1": 70_000,
                "intel-rapl:2": 20_000_000,
                "intel-rapl-mmio:0": 5_000_000,
            },
        )
        assert meter.read() == pytest.approx(5 + 0.3 + 2 + 0.07)
        assert (meter.source, meter.covers) == ("measured:rapl", Covers.CPU)
        assert meter.scope == "package-0, dram, package-1, dram"

    def test_each_counter_wraps_for_itself(self, tmp_path):
        near = trees.RAPL_RANGE - 1_000_000
        trees.powercap(tmp_path, {"intel-rapl:0": near, "intel-rapl:1": 500})
        meter = only(rapl_powercap.find(tmp_path))
        trees.powercap(tmp_path, {"intel-rapl:0": 250_000, "intel-rapl:1": 1_000_500})
        assert meter.read() == pytest.approx(1.25 + 1)
        trees.powercap(tmp_path, {"intel-rapl:0": 250_000, "intel-rapl:1": 1_000_500})
        assert meter.read() == pytest.approx(1.25 + 1)

    def test_a_moving_counter_is_followed(self, tmp_path):
        trees.powercap(tmp_path, {"intel-rapl:0": trees.RAPL_RANGE - 3_000})
        meter = only(rapl_powercap.find(tmp_path))
        file = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
        scratch = tmp_path / "scratch"
        end = threading.Event()

        def move():
            position = trees.RAPL_RANGE - 3_000
            while not end.wait(0.001):
                position += 500
                scratch.write_text(f"{position % trees.RAPL_RANGE}\n")
                scratch.rename(file)

        mover = threading.Thread(target=move)
        mover.start()
        readings = []
        while len(readings) < 5 or readings[-1] < 0.01:
            readings.append(meter.read())
            time.sleep(0.002)
        end.set()
        mover.join()
        assert readings == sorted(readings)
        assert readings[-1] < 1  # a wrap taken as a step backwards or forwards would be 262 kJ

    def test_no_permission_is_said(self, tmp_path, monkeypatch):
        trees.powercap(tmp_path, {})
        read_text = Path.read_text

        def refuse(path, *args, **kwargs):
            if path.name == "energy_uj":
                raise PermissionError(13, "Permission denied", str(path))
            return read_text(path, *args, **kwargs)

        monkeypatch.setattr(Path, "read_text", refuse)
        text = reason(rapl_powercap.find(tmp_path))
        assert "may not be read by this user" in text
        assert "energy_uj" in text
        assert "root" in text

    def test_machine_without_it(self, tmp_path):
        assert "virtual machine" in reason(rapl_powercap.find(tmp_path))


class TestPerf:
    def test_one_event_a_domain_and_package_in_joules(self, tmp_path):
        trees.perf(tmp_path)
        opened, counts = [], {}

        def opener(kind, config, pid, cpu):
            opened.append((kind, config, pid, cpu))
            file = tmp_path / f"event{len(opened)}"
            file.write_bytes((7).to_bytes(8, "little"))
            descriptor = os.open(file, os.O_RDONLY)
            counts[descriptor] = file
            return descriptor

        meter = only(rapl_perf.find(tmp_path, opener))
        assert opened == [(21, 2, -1, 0), (21, 2, -1, 18), (21, 3, -1, 0), (21, 3, -1, 18)]
        for descriptor, file in counts.items():
            file.write_bytes((7 + (1 << 32)).to_bytes(8, "little"))
            os.lseek(descriptor, 0, os.SEEK_SET)
        assert meter.read() == pytest.approx(4 * (1 << 32) * 2.3283064365386962890625e-10)
        meter.close()
        for descriptor in counts:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(descriptor)

    def test_refusal_names_the_setting(self, tmp_path):
        trees.perf(tmp_path)

        def opener(*_):
            raise PermissionError(13, "Permission denied")

        text = reason(rapl_perf.find(tmp_path, opener))
        assert "perf_event_paranoid is 2" in text
        assert "CAP_PERFMON" in text

    def test_half_opened_events_are_closed(self, tmp_path):
        trees.perf(tmp_path)
        opened = []

        def opener(*_):
            if opened:
                raise OSError(24, "Too many open files")
            opened.append(os.open(tmp_path / "proc/sys/kernel/perf_event_paranoid", os.O_RDONLY))
            return opened[0]

        assert "Too many open files" in reason(rapl_perf.find(tmp_path, opener))
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(opened[0])

    def test_unknown_unit_is_not_guessed(self, tmp_path):
        trees.perf(tmp_path)
        trees.write(tmp_path, {"sys/bus/event_source/devices/power/events/energy-pkg.unit": "Furlongs"})
        assert "Furlongs" in reason(rapl_perf.find(tmp_path, lambda *_: pytest.fail("opened")))

    @pytest.mark.skipif(platform.system() != "Linux", reason="perf events are Linux")
    def test_the_system_call_itself(self):
        software, task_clock = 1, 1
        try:
            descriptor = rapl_perf.open_event(software, task_clock, 0, -1)
        except OSError as error:
            pytest.skip(f"this kernel or sandbox allows no perf events: {error}")
        try:
            first = rapl_perf.read_event(descriptor)
            sum(range(200_000))
            assert rapl_perf.read_event(descriptor) > first
        finally:
            os.close(descriptor)
        with pytest.raises(OSError):  # noqa: PT011 -- which code differs between kernels
            rapl_perf.open_event(software, 999_999, 0, -1)


class TestHwmon:
    def test_sockets_of_amd_energy_without_their_cores(self, tmp_path):
        folder = "sys/class/hwmon/hwmon2"
        labels = {1: "Ecore000", 2: "Ecore001", 3: "Esocket0", 4: "Esocket1"}
        files = {f"{folder}/name": "amd_energy"}
        for index, label in labels.items():
            files |= {f"{folder}/energy{index}_label": label, f"{folder}/energy{index}_input": 1_000_000}
        trees.write(tmp_path, files)
        meter = only(hwmon.find(tmp_path))
        trees.write(tmp_path, {f"{folder}/energy{index}_input": 1_000_000 * (index + 1) for index in labels})
        assert meter.read() == pytest.approx(3 + 4)
        assert (meter.source, meter.covers) == ("measured:amd_energy", Covers.CPU)

    @pytest.mark.parametrize(
        "files",
        [
            {"name": "ina219", "in0_input": 2, "in1_input": 5_100, "curr1_input": 600, "power1_input": 3_060_000},
            {"name": "ina226", "in1_input": 5_100, "curr1_input": 600},
            {"name": "power_meter", "power1_average": 3_060_000},
            {
                "name": "ina3221",
                **{f"in{i}_label": label for i, label in ((1, "core"), (2, "ddr"), (3, "usb"))},
                "in1_input": 5_000,
                "curr1_input": 600,
                "in2_input": 1_000,
                "curr2_input": 60,
                "in3_input": 5_000,
                "curr3_input": 900,
                "in3_enable": 0,
            },
        ],
        ids=["ina219", "ina226", "acpi", "ina3221"],
    )
    def test_power_in_watts(self, tmp_path, files):
        trees.write(tmp_path / "sys/class/hwmon/hwmon0", files)
        meter = only(hwmon.find(tmp_path))
        meter._sampling = False
        moments = iter([0.0, 2.0])
        meter._clock = lambda: next(moments)
        meter.read()
        assert meter.read() == pytest.approx(2 * 3.06)
        assert meter.covers is Covers.SYSTEM

    def test_a_graphics_card_is_not_the_processor(self, tmp_path):
        trees.write(tmp_path / "sys/class/hwmon/hwmon4", {"name": "amdgpu", "power1_average": 30_000_000})
        found = hwmon.find(tmp_path)
        assert only(found).covers is Covers.GPU
        assert choose(found) is None

    def test_temperatures_and_batteries_are_no_meters(self, tmp_path):
        trees.write(tmp_path / "sys/class/hwmon/hwmon0", {"name": "coretemp", "temp1_input": 41_000})
        trees.write(
            tmp_path / "sys/class/hwmon/hwmon1",
            {"name": "BAT0", "in0_input": 11_880, "power1_input": 7_450_000, "device/type": "Battery"},
        )
        assert "no chip" in reason(hwmon.find(tmp_path))

    def test_a_chip_that_answers_nonsense_is_named(self, tmp_path):
        trees.write(tmp_path / "sys/class/hwmon/hwmon0", {"name": "ina219", "power1_input": "Invalid"})
        assert "power1_input holds no number" in reason(hwmon.find(tmp_path))


def watts_of(meter):
    return meter._watts()


class TestJetson:
    def test_input_rail_alone_where_there_is_one(self, tmp_path):
        meter = only(jetson.find(trees.orin_nano(tmp_path)))
        assert watts_of(meter) == pytest.approx(5.056 * 0.920)
        assert (meter.scope, meter.source) == ("VDD_IN", "measured:ina3221")

    def test_sum_of_supplies_without_what_they_feed(self, tmp_path):
        meter = only(jetson.find(trees.agx_orin(tmp_path)))
        assert watts_of(meter) == pytest.approx(19.824 * 0.160 + 19.824 * 0.072 + 4.968 * 0.912)
        assert meter.scope == "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"

    def test_old_layout_in_milliwatts(self, tmp_path):
        meter = only(jetson.find(trees.agx_xavier(tmp_path)))
        assert watts_of(meter) == pytest.approx(2.1)
        assert meter.scope == "GPU + CPU + SOC + CV + VDDRQ + SYS5V"

    def test_the_chip_is_not_found_twice(self, tmp_path):
        found = find_meters(trees.orin_nano(tmp_path))
        assert [meter.name for meter in found.meters] == ["jetson-ina3221"]

    def test_no_permission(self, tmp_path):
        trees.orin_nano(tmp_path)
        file = tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/curr1_input"
        file.unlink()
        file.mkdir()
        assert str(file) in reason(jetson.find(tmp_path))

    def test_other_boards(self, tmp_path):
        trees.write(tmp_path, {"proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0"})
        assert "no Jetson" in reason(jetson.find(tmp_path))


class TestRaspberryPi:
    def test_sum_over_rails_that_have_both(self, tmp_path, monkeypatch):
        trees.vcgencmd(tmp_path, trees.PMIC)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        meter = only(raspberry_pi.find())
        expected = (
            0.06245952 * 3.30632200
            + 0.16102850 * 1.79828900
            + 0.00780744 * 1.10292900
            + 0.17566740 * 1.10439400
            + 0.32791250 * 0.80256330
            + 10.87674000 * 0.89745940
            + 0.00036630 * 3.30494200
            + 0.00042735 * 3.30219400
            + 0.00579975 * 0.79736190
            + 0.01367520 * 5.11168000
        )
        assert watts_of(meter) == pytest.approx(expected)
        assert meter.source == "measured:raspberry-pi-pmic"

    @pytest.mark.parametrize(
        ("answer", "status", "words"),
        [
            ('error=1 error_msg="Command not registered"\n', 0, "Command not registered"),
            ("Can't open device file: /dev/vcio\n", 255, "/dev/vcio"),
            ("", 0, "exit status 0"),
        ],
        ids=["older board", "no permission", "silence"],
    )
    def test_a_command_that_tells_nothing(self, tmp_path, answer, status, words):
        trees.vcgencmd(tmp_path / "usr/bin", answer, status)
        assert words in reason(raspberry_pi.find(tmp_path))

    def test_no_command(self, tmp_path):
        assert "no command vcgencmd" in reason(raspberry_pi.find(tmp_path))

    @given(st.text(max_size=300))
    def test_any_answer_is_understood_or_not(self, answer):
        watts = raspberry_pi.parse_watts(answer)
        assert watts is None or isinstance(watts, float)

    def test_a_number_that_is_none(self):
        assert raspberry_pi.parse_watts("A_A current(0)=1e+-.A\nA_V volt(1)=2V\n") is None


class TestBattery:
    def test_power(self, tmp_path):
        meter = only(battery.find(trees.laptop(tmp_path)))
        assert watts_of(meter) == pytest.approx(7.45)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_current_of_either_sign(self, tmp_path, sign):
        meter = only(battery.find(trees.laptop(tmp_path, power_now=None, current_now=sign * 500_000)))
        assert watts_of(meter) == pytest.approx(0.5 * 11.88)

    def test_charge_left_where_there_is_no_power(self, tmp_path):
        meter = only(battery.find(trees.laptop(tmp_path, power_now=None, voltage_now=None)))
        trees.laptop(tmp_path, power_now=None, voltage_now=None, energy_now=31_220_000)
        assert meter.read() == pytest.approx(10_000 * 3.6e-3)

    @pytest.mark.parametrize("status", ["Charging", "Full", "Not charging", "Unknown"])
    def test_on_mains_it_tells_nothing(self, tmp_path, status):
        text = reason(battery.find(trees.laptop(tmp_path, status=status)))
        assert f"BAT0 is {status}" in text
        assert "unplug" in text

    def test_plugged_in_meanwhile(self, tmp_path):
        meter = only(battery.find(trees.laptop(tmp_path)))
        trees.laptop(tmp_path, status="Charging")
        with pytest.raises(ToolchainError) as error:
            meter.read()
        assert error.value.got == "Charging"

    def test_a_mouse_is_not_the_device(self, tmp_path):
        trees.laptop(tmp_path, type="Mains")
        assert "no battery" in reason(battery.find(tmp_path))


class Nvml:
    """Functions of the module pynvml over cards that are given as a list of dicts."""

    class NVMLError(Exception):
        pass

    def __init__(self, *cards, starts=True):
        self.cards, self.starts = cards, starts

    def nvmlInit(self):
        if not self.starts:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self):
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index):
        return self.cards[index]

    def nvmlDeviceGetName(self, card):
        return card["name"]

    def _get(self, card, key):
        if key not in card:
            raise self.NVMLError("Not Supported")
        return card[key]

    def nvmlDeviceGetTotalEnergyConsumption(self, card):
        return self._get(card, "millijoules")

    def nvmlDeviceGetPowerUsage(self, card):
        return self._get(card, "milliwatts")


class TestNvml:
    def test_energy_counter_else_power_else_reason(self, tmp_path):
        new = {"name": b"NVIDIA H100", "millijoules": 5_000, "milliwatts": 70_000}
        old = {"name": "Tesla P4", "milliwatts": 23_500}
        found = nvml.find(tmp_path, Nvml(new, old, {"name": "GeForce GT 710"}))
        counter, power = found.meters
        new["millijoules"] = 7_500
        assert counter.read() == pytest.approx(2.5)
        assert watts_of(power) == pytest.approx(23.5)
        assert "H100" in counter.scope
        assert [item.name for item in found.unusable] == ["nvml 2"]
        assert "Not Supported" in found.unusable[0].reason

    def test_a_card_that_falls_off(self, tmp_path):
        card = {"name": "x", "millijoules": 1}
        meter = only(nvml.find(tmp_path, Nvml(card)))
        del card["millijoules"]
        with pytest.raises(ToolchainError) as error:
            meter.read()
        assert error.value.got == "Not Supported"

    def test_no_driver_and_no_card(self, tmp_path):
        assert "Driver Not Loaded" in reason(nvml.find(tmp_path, Nvml(starts=False)))
        assert "no card" in reason(nvml.find(tmp_path, Nvml()))

    def test_functions_are_those_of_the_real_module(self):
        pynvml = pytest.importorskip("pynvml")
        for name in dir(Nvml):
            if name.startswith("nvml"):
                assert callable(getattr(pynvml, name)), name
        assert issubclass(pynvml.NVMLError, Exception)


class TestFind:
    def test_every_reader_gives_a_meter_or_a_reason(self, tmp_path):
        found = find_meters(tmp_path)
        assert found.meters == ()
        assert {item.name for item in found.unusable} == {
            *("rapl-powercap", "rapl-perf", "jetson-ina3221", "raspberry-pi-pmic", "hwmon", "battery", "nvml")
        }
        assert all(item.reason for item in found.unusable)

    def test_this_machine(self):
        found = find_meters()
        for meter in found.meters:
            assert meter.read() >= 0
            meter.close()
        assert found.meters or found.unusable

    def test_the_processor_comes_first_and_cards_last(self, tmp_path):
        trees.laptop(trees.powercap(tmp_path, {}))
        found = find_meters(tmp_path, Nvml({"name": "x", "millijoules": 1}))
        assert [meter.name for meter in found.meters] == ["rapl-powercap", "battery", "nvml 0"]
        chosen = choose(found)
        assert chosen is found.meters[0]

    def test_a_card_is_never_chosen_for_a_model_on_the_processor(self, tmp_path):
        assert choose(find_meters(tmp_path, Nvml({"name": "x", "millijoules": 1}))) is None


@pytest.mark.parametrize(("text", "numbers"), [("0", [0]), ("0,18\n", [0, 18]), ("0,2-4", [0, 2, 3, 4]), ("", [])])
def test_lists_of_the_kernel(text, numbers):
    assert indices(text) == numbers
