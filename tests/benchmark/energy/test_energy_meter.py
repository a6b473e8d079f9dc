"""Counters that wrap, and power that is integrated; which meter is chosen."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemill.benchmark.energy import (
    Covers,
    find_meters,
)
from edgemill.benchmark.energy.find import choose
from edgemill.benchmark.energy.meter import Counter, PowerMeter
from edgemill.benchmark.energy.sysfs import indices
from edgemill.errors import ToolchainError
from tests.benchmark.energy import trees
from tests.benchmark.energy.nvml_library import Nvml


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
