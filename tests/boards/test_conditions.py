"""Governor, clocks and temperature as the kernel of a board shows them, from a copy of its files."""

from __future__ import annotations

import os

from edgemill.device.conditions import conditions


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_board_that_tells_everything(tmp_path):
    for core, governor in enumerate(("ondemand", "performance", "ondemand")):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{core}/cpufreq"
        for name, text in (("scaling_governor", governor), ("scaling_cur_freq", f"{1000 + core}000")):
            write(folder / name, f"{text}\n")
        write(folder / "scaling_min_freq", "600000\n")
        write(folder / "scaling_max_freq", "2400000\n")
    write(tmp_path / "sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
    write(tmp_path / "sys/class/thermal/thermal_zone0/temp", "61250\n")
    told = conditions(tmp_path)
    assert told.governors == ("ondemand", "performance")
    assert (told.mhz, told.mhz_follows, told.mhz_min, told.mhz_max) == (1001, True, 600, 2400)
    assert told.temperature_c == 61.25
    assert told.missing == {}
    assert told.load == os.getloadavg()[0]


def test_what_a_board_does_not_tell_is_named(tmp_path):
    told = conditions(tmp_path)
    assert (told.governors, told.temperature_c, told.mhz, told.mhz_max) == ((), None, None, None)
    assert set(told.missing) == {"governor", "temperature", "frequency"}
