import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgemill.benchmark.interval import BATCHES, round_ratios, student_quantile, typical
from edgemill.benchmark.run_length import until_precise
from edgemill.benchmark.speed import speed_verdict
from edgemill.recipe import Benchmark

TRUE = 0.42


def white(rng, n):
    return rng.normal(size=n)


def heavy(rng, n):
    return rng.standard_t(2.1, size=n)


def alike(rng, n, innovations=white, r=0.6):
    """AR(1): neighbours err to the same side."""
    values = innovations(rng, n + 100) * math.sqrt(1 - r * r)
    for index in range(1, n + 100):
        values[index] += r * values[index - 1]
    return values[100:]


def sittings(rng, n):
    """Every sitting of 5 rounds has an error of its own."""
    return white(rng, n) + 0.7 * np.repeat(white(rng, n // 5 + 1), 5)[:n]


SERIES = {
    "white": (0.015, white),
    "heavy_tails": (0.01, heavy),
    "autocorrelated": (0.015, alike),
    "autocorrelated_heavy_tails": (0.008, lambda rng, n: alike(rng, n, heavy)),
    "sittings": (0.015, sittings),
}


class TestRoundRatios:
    def test_drift_cancels_within_rounds(self):
        rng = np.random.default_rng(0)
        drift = np.linspace(1, 5, 40)[:, None]
        baseline = drift * rng.uniform(0.99, 1.01, (40, 9))
        variant = 0.4 * drift * rng.uniform(0.99, 1.01, (40, 9))
        estimate = typical(round_ratios(variant, baseline), 0.95)
        assert 0.395 < estimate.lower < estimate.value < estimate.upper < 0.405

    def test_one_slow_call_in_a_round_does_not_move_it(self):
        baseline = np.ones((10, 5))
        variant = np.full((10, 5), 0.5)
        variant[:, 2] = 1000
        np.testing.assert_array_equal(round_ratios(variant, baseline), np.full(10, 0.5))


class TestInterval:
    @pytest.mark.parametrize("rounds", [32, 200])
    @pytest.mark.parametrize("name", SERIES)
    def test_covers_the_true_ratio_as_often_as_it_says(self, name, rounds):
        scale, noise = SERIES[name]
        trials = 300
        hits = 0
        for trial in range(trials):
            rng = np.random.default_rng([trial, rounds])
            estimate = typical(TRUE * np.exp(scale * noise(rng, rounds)), 0.95)
            hits += estimate.lower <= TRUE <= estimate.upper
        assert hits / trials > 0.95 - 4 * math.sqrt(0.05 * 0.95 / trials)

    def test_is_not_so_wide_that_it_says_nothing(self):
        widths = []
        for trial in range(200):
            values = TRUE * np.exp(0.015 * white(np.random.default_rng(trial), 200))
            estimate = typical(values, 0.95)
            widths.append((estimate.upper - estimate.lower) / 2 / TRUE)
        best = 1.96 * 0.015 * math.sqrt(math.pi / 2 / 200)  # of the median of independent normal values
        assert np.mean(widths) < 1.6 * best

    def test_drift_of_the_ratio_widens_it_over_its_range(self):
        values = TRUE * np.exp(np.linspace(-0.05, 0.05, 80) + 0.002 * white(np.random.default_rng(1), 80))
        drifting, still = typical(values, 0.95), typical(np.random.default_rng(2).permutation(values), 0.95)
        assert drifting.upper - drifting.lower > 3 * (still.upper - still.lower)

    def test_a_bad_round_in_every_batch_does_not_move_it(self):
        values = np.full(BATCHES * 5, TRUE)
        values[::5] = 100
        assert typical(values, 0.95) == pytest.approx((TRUE, TRUE, TRUE))

    @given(
        logs=st.lists(st.floats(-3, 3), min_size=BATCHES, max_size=60),
        confidence=st.floats(0.55, 0.99),
    )
    def test_holds_the_estimate_and_turns_with_the_ratio(self, logs, confidence):
        values = np.exp(np.array(logs))
        estimate = typical(values, confidence)
        assert 0 < estimate.lower <= estimate.value <= estimate.upper
        turned = typical(1 / values, confidence)
        assert (1 / turned.value, 1 / turned.upper, 1 / turned.lower) == pytest.approx(estimate)
        wider = typical(values, confidence + 0.009)
        assert wider.lower <= estimate.lower <= estimate.upper <= wider.upper

    @given(rounds=st.integers(1, BATCHES - 1))
    def test_too_few_rounds_promise_nothing(self, rounds):
        estimate = typical(np.full(rounds, 0.5), 0.95)
        assert estimate == pytest.approx((0.5, 0.0, math.inf))
        assert not estimate.is_within(0.99)

    @pytest.mark.parametrize("degrees", [1, 3, 7, 15])
    @pytest.mark.parametrize("probability", [0.5, 0.6, 0.9, 0.975, 0.9995])
    def test_student_quantiles_are_those_of_scipy(self, probability, degrees):
        assert student_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), abs=1e-9)


class Machine:
    """Rounds of 7 ms in sittings 0.3 s apart, beside load that comes and goes and shifts the ratio by 1 %."""

    def __init__(self, seed, phase_s=0.5, shift=0.01, noise=0.012):
        self.rng = np.random.default_rng([seed, 3])
        self.time, self.phase_s, self.shift, self.noise = 0.0, phase_s, shift, noise
        self.loaded, self.until = bool(self.rng.random() < 0.5), self.rng.exponential(phase_s)
        self.ratios = []
        self.lengths = []

    def sit(self, rounds):
        self.lengths.append(rounds)
        self.time += 0.3
        sitting = 0.004 * self.rng.normal()
        for _ in range(rounds):
            self.time += 0.007
            while self.time > self.until:
                self.loaded, self.until = not self.loaded, self.until + self.rng.exponential(self.phase_s)
            error = sitting + self.shift * (self.loaded - 0.5) + self.noise * self.rng.standard_t(3) / math.sqrt(3)
            self.ratios.append(TRUE * math.exp(error))
        return np.array(self.ratios)


class TestRunLength:
    @pytest.mark.parametrize("precision", [0.02, 0.006])
    def test_looking_repeatedly_keeps_the_coverage_under_changing_load(self, precision):
        trials, hits, stops = 250, 0, []
        for trial in range(trials):
            machine = Machine(trial)
            stops.append(
                until_precise(machine.sit, Benchmark(precision=precision), 0.95, lambda m=machine: m.time > 30)
            )
            estimate = typical(np.array(machine.ratios), 0.95)
            hits += estimate.lower <= TRUE <= estimate.upper
            assert stops[-1] == "time budget" or estimate.is_within(precision)
        assert hits / trials > 0.89
        assert stops.count("precise") > 0.8 * trials

    def test_more_noise_is_a_longer_run_up_to_the_time_budget(self):
        runs = [Machine(5, noise=noise) for noise in (0.001, 0.1, 5.0)]
        stops = [until_precise(run.sit, Benchmark(), 0.95, lambda m=run: m.time > 30) for run in runs]
        assert stops == ["precise", "precise", "time budget"]
        assert len(runs[0].ratios) < len(runs[1].ratios) < len(runs[2].ratios)
        assert 30 <= len(runs[0].ratios) <= 37
        assert runs[2].time < 33  # it asks between sittings; a real one ends within

    def test_looks_become_rarer(self):
        machine = Machine(6, noise=5.0)
        until_precise(machine.sit, Benchmark(), 0.95, lambda: machine.time > 300)
        totals = np.cumsum(machine.lengths)
        looks = totals[[7, *range(11, len(totals), 4)]]
        assert np.all(looks[1:] >= 1.5 * looks[:-1])

    def test_rounds_that_do_not_count_are_made_up_for(self):
        taken = []

        def sit(rounds):
            taken.append(rounds)
            return np.full(sum(taken) // 3, 0.5)

        assert until_precise(sit, Benchmark(rounds=40), 0.95, lambda: sum(taken) > 10_000) == "precise"
        assert sum(taken) >= 120

    def test_the_minimum_is_measured_even_without_time(self):
        machine = Machine(7, noise=5.0)
        assert until_precise(machine.sit, Benchmark(rounds=20), 0.95, lambda: True) == "time budget"
        assert len(machine.ratios) == 24
        assert len(machine.lengths) == BATCHES


class TestVerdict:
    @pytest.mark.parametrize(
        ("interval", "verdict"),
        [
            ((0.42, 0.41, 0.43), "faster"),
            ((0.99, 0.97, 1.0), "no different"),
            ((1.0, 0.9, 1.1), "no different"),
            ((1.05, 1.0, 1.1), "no different"),
            ((6.3, 6.2, 6.4), "slower"),
            ((0.5, 0.0, math.inf), "no different"),
            ((math.nan, math.nan, math.nan), "no different"),
            ((0.5, 0.4, math.nan), "no different"),
        ],
    )
    def test_only_a_whole_interval_decides(self, interval, verdict):
        assert speed_verdict(*interval) == verdict

    @given(st.floats(0.01, 100), st.floats(0, 1), st.floats(0, 10))
    def test_the_inverse_has_the_opposite_verdict(self, ratio, below, above):
        lower, upper = ratio * (1 - below / 2), ratio * (1 + above)
        opposite = {"faster": "slower", "slower": "faster", "no different": "no different"}
        if all(value == 1 or abs(value - 1) > 1e-9 for value in (ratio, lower, upper)):
            assert speed_verdict(1 / ratio, 1 / upper, 1 / lower) == opposite[speed_verdict(ratio, lower, upper)]
