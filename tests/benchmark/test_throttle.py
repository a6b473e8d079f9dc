import math

import numpy as np
import pytest

from edgemill.benchmark.throttle import RISE, find_slowdown, find_throttle

N = 180


def noise(seed, kind, n=N):
    """Relative latency of a machine whose speed does not change."""
    rng = np.random.default_rng(seed)
    if kind == "even":
        return np.exp(0.03 * rng.standard_normal(n))
    if kind == "wide":
        return np.exp(0.15 * rng.standard_normal(n))
    if kind == "outliers":
        return np.exp(0.04 * rng.standard_normal(n)) * np.where(rng.random(n) < 0.05, 3, 1)
    if kind == "heavy tails":
        return np.exp(0.05 * rng.standard_t(2, n))
    level, series = 0.0, []
    for _ in range(n):  # neighbours resemble each other, as under other load that comes and goes
        level = 0.8 * level + rng.normal(0, 0.03 * 0.6)
        series.append(math.exp(level))
    return np.array(series)


@pytest.mark.parametrize("kind", ["even", "wide", "outliers", "heavy tails", "correlated"])
def test_noise_alone_is_no_throttling(kind):
    seconds = np.arange(N, dtype=float)
    alarms = sum(find_slowdown(seconds, 0.2 * noise(seed, kind)) is not None for seed in range(100))
    assert alarms <= 5


@pytest.mark.parametrize("kind", ["even", "outliers", "heavy tails", "correlated"])
def test_a_rise_of_a_fifth_is_found_within_a_few_windows(kind):
    seconds = np.arange(N, dtype=float)
    errors = []
    for seed in range(50):
        found = find_slowdown(seconds, 0.2 * noise(seed, kind) * np.where(seconds >= 70, 1.2, 1))
        assert found is not None
        errors.append(abs(found.onset_s - 70))
        assert found.rise == pytest.approx(0.2, abs=0.1)
    assert np.mean(np.array(errors) <= 5) >= 0.9


def test_a_rise_below_the_stated_share_does_not_count():
    seconds = np.arange(N, dtype=float)
    for seed in range(20):
        assert find_slowdown(seconds, noise(seed, "even") * np.where(seconds >= 70, 1 + RISE / 2, 1)) is None


def test_a_rise_that_passes_does_not_count():
    seconds = np.arange(N, dtype=float)
    busy = (seconds >= 60) & (seconds < 90)
    for seed in range(20):
        assert find_slowdown(seconds, noise(seed, "even") * np.where(busy, 1.5, 1)) is None


def test_a_slow_start_is_no_throttling_and_no_yardstick():
    seconds = np.arange(N, dtype=float)
    cold = np.where(seconds < 12, 1.6, 1)
    assert find_slowdown(seconds, noise(1, "even") * cold) is None
    found = find_slowdown(seconds, noise(1, "even") * np.where(seconds >= 100, 1.3, cold))
    assert found.onset_s == pytest.approx(100, abs=3)
    assert found.before_ms == pytest.approx(1, rel=0.03)


def test_throttling_that_comes_and_goes_but_stays():
    seconds = np.arange(N, dtype=float)
    cycling = (seconds > 80) & ((seconds // 12) % 3 > 0)
    assert find_slowdown(seconds, noise(2, "even") * np.where(cycling, 1.3, 1)).onset_s == pytest.approx(84, abs=5)


def test_long_runs_are_reduced_and_keep_their_onset():
    seconds = np.arange(4 * 3600, dtype=float)
    found = find_slowdown(seconds, noise(3, "even", len(seconds)) * np.where(seconds >= 5000, 1.25, 1))
    assert found.onset_s == pytest.approx(5000, abs=2 * 8)


@pytest.mark.parametrize("n", [0, 1, 19])
def test_short_runs_say_nothing(n):
    assert find_slowdown(np.arange(n, dtype=float), np.linspace(1, 5, n)) is None


def test_constant_latency():
    assert find_slowdown(np.arange(60.0), np.full(60, 0.25)) is None
    assert find_slowdown(np.arange(60.0), np.where(np.arange(60) < 30, 0.25, 0.3)).onset_s == 30


class TestEvidence:
    seconds = np.arange(N, dtype=float)
    hot = seconds >= 70
    latency = noise(0, "even") * np.where(hot, 1.3, 1)
    unknown = np.full(N, np.nan)

    def find(self, temperature=unknown, mhz=unknown, taken=unknown):
        return find_throttle(self.seconds, self.latency, temperature, mhz, taken)

    def test_clock_and_temperature(self):
        found = self.find(np.where(self.hot, 81.0, 70.0), np.where(self.hot, 1500.0, 2400.0))
        assert found.throttle_onset_s == pytest.approx(70, abs=3)
        assert found.throttle_evidence == (
            "the clock fell from 2400 to 1500 MHz",
            "the processor warmed from 70.0 to 81.0 °C",
        )

    def test_warmth_alone(self):
        found = self.find(np.where(self.hot, 81.0, 70.0))
        assert found.throttle_onset_s is not None
        assert len(found.throttle_evidence) == 1

    def test_slower_but_neither_warmer_nor_clocked_down_is_not_heat(self):
        found = self.find(np.full(N, 60.0), np.full(N, 2400.0))
        assert found.throttle_onset_s is None
        assert found.slowdown.onset_s == pytest.approx(70, abs=3)
        assert all("did not" in words for words in found.throttle_evidence)

    def test_sensors_that_fail_now_and_then(self):
        gaps = np.where(np.arange(N) % 7 == 0, np.nan, np.where(self.hot, 81.0, 70.0))
        assert self.find(gaps).throttle_onset_s is not None

    def test_nothing_readable_is_said(self):
        found = self.find()
        assert found.throttle_onset_s is not None
        assert "latency alone" in found.throttle_evidence[0]

    def test_other_load_explains_it(self):
        found = self.find(taken=np.where(self.hot, 0.3, 0.01))
        assert found.throttle_onset_s is None
        assert found.slowdown is not None
        assert "other programs took 1.0% of the time before and 30.0% after" in found.throttle_evidence[0]
        assert self.find(taken=np.full(N, 0.3)).throttle_onset_s is not None

    def test_no_slowdown_no_evidence(self):
        found = find_throttle(self.seconds, noise(0, "even"), self.hot * 20.0 + 60, self.unknown, self.unknown)
        assert (found.throttle_onset_s, found.throttle_evidence, found.slowdown) == (None, (), None)
