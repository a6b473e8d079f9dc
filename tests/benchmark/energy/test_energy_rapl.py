"""Energy counters of x86 processors."""

import os
import platform
import threading
import time
from pathlib import Path

import pytest

from edgemill.benchmark.energy import (
    Covers,
    rapl_perf,
    rapl_powercap,
)
from tests.benchmark.energy import trees
from tests.benchmark.energy.found import only, reason


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
