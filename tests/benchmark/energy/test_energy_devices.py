"""Power sensors of boards, laptops and GPUs."""

import os

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
    raspberry_pi,
)
from edgemill.benchmark.energy.find import choose
from edgemill.errors import ToolchainError
from tests.benchmark.energy import trees
from tests.benchmark.energy.found import only, reason, watts_of
from tests.benchmark.energy.nvml_library import Nvml


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
