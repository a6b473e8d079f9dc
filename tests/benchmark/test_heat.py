import math

import pytest

from edgemill.benchmark.heat import find_sensors
from tests.benchmark.energy import trees

ZONES = "sys/class/thermal"
CPU = "sys/devices/system/cpu"
CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
cpu MHz\t\t: 3100.500

processor\t: 1
vendor_id\t: GenuineIntel
cpu MHz\t\t: 800.000
"""


def board(root):
    """A Raspberry Pi: one zone, cpufreq of four cores, no hardware monitor of the processor."""
    files = {
        f"{ZONES}/thermal_zone0/type": "cpu-thermal",
        f"{ZONES}/thermal_zone0/temp": 48_312,
        f"{ZONES}/cooling_device0/type": "cpufreq-cpu0",
        "sys/class/hwmon/hwmon0/name": "rp1_adc",
        "sys/class/hwmon/hwmon0/temp1_input": 61_000,
    }
    for core, kilohertz in enumerate((2_400_000, 1_500_000, 1_500_000, 1_700_000)):
        files[f"{CPU}/cpu{core}/cpufreq/scaling_cur_freq"] = kilohertz
    return trees.write(root, files | {f"{CPU}/cpufreq/policy0/scaling_cur_freq": 1})


def test_processor_alone_and_the_cores_that_are_measured(tmp_path):
    sensors = find_sensors(board(tmp_path), cores=[0, 3])
    assert [sensor.name for sensor in sensors.temperatures] == ["thermal_zone0 cpu-thermal"]
    assert sensors.temperature_c() == pytest.approx(48.312)
    assert sensors.mhz() == pytest.approx((2400 + 1700) / 2)
    assert sensors.clocks_follow
    assert sensors.missing == {}
    trees.write(tmp_path, {f"{ZONES}/thermal_zone0/temp": 82_000, f"{CPU}/cpu0/cpufreq/scaling_cur_freq": 1_500_000})
    assert (sensors.temperature_c(), sensors.mhz()) == (82.0, 1600.0)


def test_the_hottest_of_several(tmp_path):
    chip = "sys/class/hwmon/hwmon3"
    trees.write(
        tmp_path,
        {
            f"{chip}/name": "coretemp",
            f"{chip}/temp1_label": "Package id 0",
            f"{chip}/temp1_input": 55_000,
            f"{chip}/temp2_label": "Core 0",
            f"{chip}/temp2_input": 57_000,
            "sys/class/hwmon/hwmon1/name": "nvme",
            "sys/class/hwmon/hwmon1/temp1_input": 70_000,
            f"{ZONES}/thermal_zone0/type": "acpitz",
            f"{ZONES}/thermal_zone0/temp": 90_000,
        },
    )
    sensors = find_sensors(tmp_path)
    assert [sensor.name for sensor in sensors.temperatures] == ["coretemp Package id 0", "coretemp Core 0"]
    assert sensors.temperature_c() == 57


def test_sensors_of_unknown_name_where_there_are_no_others(tmp_path):
    trees.write(tmp_path, {f"{ZONES}/thermal_zone0/type": "acpitz", f"{ZONES}/thermal_zone0/temp": 27_800})
    assert find_sensors(tmp_path).temperature_c() == pytest.approx(27.8)


@pytest.mark.parametrize("content", ["-274000", "4294967295", "", "N/A"])
def test_a_broken_sensor_is_no_sensor(tmp_path, content):
    trees.write(tmp_path, {f"{ZONES}/thermal_zone0/type": "cpu-thermal", f"{ZONES}/thermal_zone0/temp": content})
    sensors = find_sensors(tmp_path)
    assert sensors.temperatures == ()
    assert "temperature" in sensors.missing


def test_a_sensor_that_goes_away_gives_nan(tmp_path):
    sensors = find_sensors(board(tmp_path))
    (tmp_path / f"{ZONES}/thermal_zone0/temp").unlink()
    assert math.isnan(sensors.temperature_c())


def test_clock_from_cpuinfo_counts_only_if_it_moves(tmp_path):
    sensors = find_sensors(trees.write(tmp_path, {"proc/cpuinfo": CPUINFO}), cores=[1])
    assert sensors.mhz() == 800
    assert not sensors.clocks_follow
    assert find_sensors(tmp_path).mhz() == pytest.approx(1950.25)


def test_machine_that_tells_nothing(tmp_path):
    sensors = find_sensors(tmp_path)
    assert math.isnan(sensors.temperature_c())
    assert math.isnan(sensors.mhz())
    assert set(sensors.missing) == {"temperature", "frequency"}
