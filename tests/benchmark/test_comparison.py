import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgemill.benchmark.blocks import time_block, warm_up
from edgemill.benchmark.comparison import Comparison, is_disturbed
from edgemill.benchmark.cores import Taken, pinned
from edgemill.benchmark.host import usable_cores
from edgemill.recipe import Benchmark

linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin")


def autogroup():
    file = Path("/proc/self/autogroup")
    return file.read_text() if file.exists() else None


def work(seconds):
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


class Models:
    """Two calls that note what is called, loaded anew for every sitting."""

    def __init__(self):
        self.loads = 0
        self.calls = []

    def load(self):
        self.loads += 1
        return {"variant": lambda: self.calls.append("v"), "baseline": lambda: self.calls.append("b")}


def compare(models, rule, report=lambda fraction, message: None, **others):
    with pinned(1) as pin:
        comparison = Comparison(models.load, rule, pin, report, **others)
        estimate = comparison.run(0.95)
    return comparison, estimate


class TestInterleaving:
    def test_blocks_alternate_and_the_first_changes(self):
        models = Models()
        bounds = []
        rule = Benchmark(rounds=24, runs_per_round=3, time_budget_s=1e-9)
        comparison, _ = compare(models, rule, lambda fraction, message: bounds.append(len(models.calls)))
        rounds = ["".join(models.calls[end - 10 : end]) for end in bounds]  # 2 untimed and 3 timed calls of each
        assert rounds == ["vvvvvbbbbb", "bbbbbvvvvv"] * 12
        assert comparison.times("variant", every=True).shape == (24, 3)

    def test_every_sitting_loads_anew_and_something_may_go_before(self):
        models = Models()
        before = []
        rule = Benchmark(rounds=30, runs_per_round=2, time_budget_s=1e-9)
        comparison, _ = compare(models, rule, between=lambda: before.append(models.loads))
        assert models.loads == comparison.facts()["sittings"] == 8
        assert before == list(range(8))
        samples = comparison.samples()
        assert np.bincount(samples["sitting"]).tolist() == [4] * 8

    def test_what_goes_on_between_sittings_costs_no_time_budget(self):
        models = Models()
        rule = Benchmark(rounds=8, runs_per_round=1, precision=1e-6, time_budget_s=0.3)
        comparison, _ = compare(models, rule, between=lambda: time.sleep(0.1))
        assert comparison.facts()["sittings"] > 8

    def test_ratio_is_found(self):
        rule = Benchmark(rounds=16, runs_per_round=5, time_budget_s=2)
        models = Models()
        models.load = lambda: {"variant": lambda: work(2e-4), "baseline": lambda: work(4e-4)}
        _, estimate = compare(models, rule)
        assert estimate.lower <= estimate.value <= estimate.upper
        assert estimate.value == pytest.approx(0.5, abs=0.1)

    def test_facts_count_what_the_samples_hold(self):
        comparison, _ = compare(Models(), Benchmark(rounds=10, runs_per_round=4, time_budget_s=0.2))
        facts, samples = comparison.facts(), comparison.samples()
        assert facts["rounds"] == len(samples["variant_ns"]) == len(samples["disturbed"])
        assert facts["rounds_disturbed"] == samples["disturbed"].sum()
        assert facts["rounds_counted"] == samples["counted"].sum() == len(comparison.times("baseline"))
        quiet = facts["rounds"] - facts["rounds_disturbed"]
        assert facts["rounds_counted"] == (quiet if quiet >= 10 else facts["rounds"])
        assert facts["involuntary_switches"] >= 0


class TestDisturbance:
    def test_rule_looks_at_the_systems_counters(self):
        millisecond = 1_000_000
        assert not is_disturbed(Taken(0, 0, 0), 10 * millisecond)
        assert not is_disturbed(Taken(3, 50_000, 0), 10 * millisecond)
        assert is_disturbed(Taken(1, millisecond, 0), 10 * millisecond)
        assert is_disturbed(Taken(0, 0, 10 * millisecond), 10 * millisecond)
        assert is_disturbed(Taken(1, None, 0), 10 * millisecond)
        assert not is_disturbed(Taken(0, None, 0), 10 * millisecond)

    def test_differences(self):
        assert Taken(5, 700, 30).since(Taken(2, 500, 10)) == Taken(3, 200, 20)
        assert Taken(5, None, 30).since(Taken(2, 500, 10)).waited_ns is None
        assert Taken(0, 100, 0).since(Taken(0, 500, 0)).waited_ns == 0  # a thread has ended

    @linux
    def test_waiting_for_a_shared_core_is_seen(self):
        before = usable_cores()
        core = before[0]
        os.sched_setaffinity(0, [core])
        spin = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            start = Taken.now([core])
            if start.waited_ns is None:
                pytest.skip("this kernel does not tell how long a thread waits")
            work(0.5)
            taken = Taken.now([core]).since(start)
        finally:
            spin.kill()
            spin.wait()
            os.sched_setaffinity(0, before)
        assert taken.waited_ns > 20_000_000
        assert taken.switches > 0
        assert is_disturbed(taken, 500_000_000)

    @linux
    def test_a_measurement_beside_a_spinning_process_is_marked_or_moves(self):
        """The load is where the measurement is: it must notice, whichever of the two it then does."""
        models = Models()
        models.load = lambda: {"variant": lambda: work(2e-4), "baseline": lambda: work(2e-4)}
        with pinned(1) as pin:
            spin = subprocess.Popen(
                [sys.executable, "-c", f"import os; os.setpriority(0, 0, {pin.priority})\nwhile True: pass"],
            )
            try:
                comparison = Comparison(
                    models.load, Benchmark(rounds=16, time_budget_s=3), pin, lambda fraction, message: None
                )
                began = pin.cores
                comparison.run(0.95)
            finally:
                spin.kill()
                spin.wait()
        facts = comparison.facts()
        assert facts["rounds_disturbed"] > 0 or facts["waited_ms"] is None
        assert pin.cores != began or facts["rounds_disturbed"] > 0

    def test_a_disturbed_run_counts_every_round_rather_than_too_few(self, monkeypatch):
        monkeypatch.setattr("edgemill.benchmark.comparison.is_disturbed", lambda taken, lasted: True)
        comparison, estimate = compare(Models(), Benchmark(rounds=10, runs_per_round=2, time_budget_s=0.1))
        facts = comparison.facts()
        assert facts["stopped"] == "time budget"
        assert facts["rounds_counted"] == facts["rounds"] == facts["rounds_disturbed"]
        assert estimate.lower > 0

    def test_disturbed_rounds_are_left_out_and_measured_again(self, monkeypatch):
        marks = iter([True, False] * 10_000)
        monkeypatch.setattr("edgemill.benchmark.comparison.is_disturbed", lambda taken, lasted: next(marks))
        rule = Benchmark(rounds=30, runs_per_round=2, precision=0.9, time_budget_s=20)
        comparison, _ = compare(Models(), rule)
        facts = comparison.facts()
        assert facts["stopped"] == "precise"
        assert facts["rounds_counted"] == facts["rounds"] - facts["rounds_disturbed"] >= 30
        np.testing.assert_array_equal(comparison.samples()["counted"], np.arange(facts["rounds"]) % 2 == 1)


@linux
class TestPin:
    def test_ends_with_the_measurement(self):
        before, niceness, session = usable_cores(), os.getpriority(os.PRIO_PROCESS, 0), autogroup()
        with pinned(1) as pin:
            assert pin.cores == usable_cores()
            assert len(pin.cores) == 1
            assert pin.priority == os.getpriority(os.PRIO_PROCESS, 0) <= niceness
        assert usable_cores() == before
        assert (os.getpriority(os.PRIO_PROCESS, 0), autogroup()) == (niceness, session)

    def test_more_threads_than_cores_run_anywhere(self):
        before = usable_cores()
        with pinned(len(before) + 1) as pin:
            pin.choose()
            assert pin.cores is None
            assert usable_cores() == before


class TestBlock:
    def test_collector_is_off_while_timing_and_as_before_afterwards(self):
        seen = []
        gc.enable()
        time_block(lambda: seen.append(gc.isenabled()), 5)
        assert gc.isenabled()
        assert seen[-5:] == [False] * 5
        gc.disable()
        try:
            time_block(lambda: None, 2)
            assert not gc.isenabled()
        finally:
            gc.enable()

    def test_collector_comes_back_after_an_error(self):
        def fail():
            raise RuntimeError("broken")

        gc.enable()
        with pytest.raises(RuntimeError):
            time_block(fail, 3)
        assert gc.isenabled()

    def test_warm_up_goes_on_while_calls_become_faster(self):
        calls = []

        def call():
            calls.append(1)
            work(max(4e-3 * 0.95 ** len(calls), 5e-4))

        assert warm_up(call, 5, limit_s=5) > 4  # of 7 calls each; from 4 to 0.5 ms it takes 41

    def test_warm_up_ends_without_time(self):
        assert warm_up(lambda: None, 5, limit_s=0) == 1
