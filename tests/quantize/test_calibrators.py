"""Streaming calibrators: accumulators, and the searches for a range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemill.quantize.calibrators.entropy import divergences, entropy_range, without_spikes
from edgemill.quantize.calibrators.extremes import Extremes, Range
from edgemill.quantize.calibrators.histogram import Histogram
from edgemill.quantize.calibrators.percentile import percentile_range
from edgemill.quantize.calibrators.squared_error import Error, least_squares_range

METHODS: dict[str, Callable[[Histogram], Range]] = {
    "minmax": lambda histogram: histogram.full_range(),
    "percentile": lambda histogram: percentile_range(histogram, 99.0),
    "entropy": entropy_range,
    "mse": least_squares_range,
}
SMALLEST = float(np.finfo(np.float32).smallest_subnormal)
LARGEST = float(np.finfo(np.float32).max)

float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
# Values of one magnitude, with exact bin edges among them, are what bins are filled with.
near = st.one_of(st.floats(-4, 4, width=32), st.integers(-1024, 1024).map(lambda i: i / 256))
tensors = st.one_of(st.lists(near, min_size=1, max_size=60), st.lists(float32s, min_size=1, max_size=30))


def histogram_of(*batches: Any, bins: int = 2048, dtype: Any = np.float32) -> Histogram:
    made = Histogram(bins)
    for batch in batches:
        made.update(np.asarray(batch, dtype))
    return made


def quantized(x: np.ndarray, low: float, high: float, levels: int = 256) -> np.ndarray:
    """Asymmetric 8-bit quantization as ONNX's QuantizeLinear and onnxruntime's choice of scale do it."""
    scale = (high - low) / (levels - 1)
    zero = np.rint(-low / scale)
    return (np.clip(np.rint(x / scale) + zero, 0, levels - 1) - zero) * scale


class TestHistogram:
    @settings(deadline=None)
    @given(tensors, st.sampled_from([2, 8, 64, 2048]), st.data())
    def test_is_numpys_of_all_values_in_whatever_batches_and_order(
        self, values: list[float], bins: int, data: st.DataObject
    ) -> None:
        whole = histogram_of(values, bins=bins)
        expected = np.histogram(np.array(values, np.float64), bins=whole.edges)[0]
        assert whole.counts.tolist() == expected.tolist()
        assert whole.counts.sum() == whole.size == len(values)
        shuffled = data.draw(st.permutations(values))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=4)))
        parts = np.split(np.array(shuffled, np.float32), cuts)
        streamed = histogram_of(*parts, bins=bins)
        assert streamed.counts.tolist() == whole.counts.tolist()
        assert (streamed.first, streamed.exponent, streamed.zeros) == (whole.first, whole.exponent, whole.zeros)

    @settings(deadline=None)
    @given(tensors, st.sampled_from([2, 8, 2048]))
    def test_bins_are_as_narrow_as_they_can_be_and_hold_zero(self, values: list[float], bins: int) -> None:
        made = histogram_of(values, bins=bins)
        edges = made.edges
        assert edges[0] <= min(*values, 0.0)
        assert edges[-1] > max(*values, 0.0)
        assert 0.0 in edges
        assert 1 <= made.used <= bins
        assert made.zeros == sum(value == 0 for value in values)
        if made.exponent is not None:
            narrower = made.width / 2
            needed = np.floor(max(*values, 0.0) / narrower) - np.floor(min(*values, 0.0) / narrower) + 1
            assert needed > bins

    def test_counts_stay_whole_while_the_range_grows_by_forty_orders(self) -> None:
        batches = [np.full(1001, 10.0**power, np.float32) for power in range(-20, 21)]
        made = histogram_of(*batches)
        assert made.counts.sum() == 41 * 1001
        assert made.counts[-made.first] >= 30 * 1001

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("kind", [Extremes, Histogram])
    def test_a_value_that_is_not_finite_is_remembered(self, kind: type[Extremes], bad: float) -> None:
        made = kind()
        made.update(np.array([1.0, 2.0], np.float32))
        assert made.finite
        made.update(np.array([1.0, bad, 3.0], np.float32))
        made.update(np.array([1.0], np.float32))
        assert not made.finite

    def test_an_empty_batch_changes_nothing(self) -> None:
        made = histogram_of([], [1.0], [])
        assert (made.size, made.low, made.high) == (1, 1.0, 1.0)


class TestPercentile:
    @settings(deadline=None)
    @given(st.lists(near, min_size=1, max_size=300), st.floats(50, 100, exclude_min=True))
    def test_is_within_a_bin_outside_of_the_exact_one(self, values: list[float], percentile: float) -> None:
        made = histogram_of(values)
        low, high = percentile_range(made, percentile)
        left_out = int(np.floor(len(values) * (100 - percentile) / 200 + 1e-9))
        ordered = np.sort(np.array(values, np.float32)).astype(float)
        exact_low, exact_high = min(ordered[left_out], 0.0), max(ordered[-1 - left_out], 0.0)
        assert exact_low - made.width <= low <= exact_low
        assert exact_high <= high <= exact_high + made.width

    def test_all_values_at_100(self) -> None:
        x = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
        assert percentile_range(histogram_of(x), 100.0) == (float(x.min()), float(x.max()))

    def test_leaves_an_outlier_out(self) -> None:
        x = np.append(np.random.default_rng(0).normal(size=99_999), 1000.0)
        low, high = percentile_range(histogram_of(x), 99.99)
        assert -5 < low < -3
        assert 3 < high < 5


def brute_divergence(counts: list[int], start: int, stop: int, levels: int) -> float:
    """KL(P || Q) by the definition, bin by bin."""
    size = stop - start
    p = [float(count) for count in counts[start:stop]]
    p[0] += sum(counts[:start])
    p[-1] += sum(counts[stop:])
    q = [0.0] * size
    for level in range(levels):
        members = range(level * size // levels, (level + 1) * size // levels)
        real = [member for member in members if p[member] > 0]
        for index in real:
            q[index] = sum(counts[start + member] for member in members) / len(real)
    if sum(q) == 0:
        return float("inf")
    p, q = [value / sum(p) for value in p], [value / sum(q) for value in q]
    if any(a > 0 and b == 0 for a, b in zip(p, q, strict=True)):
        return float("inf")
    return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


class TestEntropy:
    @settings(deadline=None)
    @given(st.lists(st.integers(0, 50), min_size=8, max_size=40), st.sampled_from([2, 3, 4, 8]), st.data())
    def test_divergence_is_that_of_the_definition(self, counts: list[int], levels: int, data: st.DataObject) -> None:
        start = data.draw(st.integers(0, len(counts) - levels))
        stop = data.draw(st.integers(start + levels, len(counts)))
        if not sum(counts):
            counts[0] = 1
        found = divergences(np.array(counts), np.array([start]), np.array([stop]), levels)[0]
        assert found == pytest.approx(brute_divergence(counts, start, stop, levels), abs=1e-9)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.integers(1, 30), min_size=12, max_size=32), st.booleans())
    def test_range_is_the_best_of_all_candidates(self, counts: list[int], signed: bool) -> None:
        levels, zero = 4, len(counts) // 3 if signed else 0
        centres = (np.arange(len(counts)) - zero + 0.5) / 4
        made = histogram_of(np.repeat(centres, counts), bins=32)
        while made.width < 0.25:  # one bin a centre
            made = histogram_of(np.repeat(centres, counts), bins=made.bins // 2)
        kept = without_spikes(made.nonzero_counts()).tolist()
        zero = -made.first
        candidates = {}
        for reach in range(1, 33):
            start, stop = max(zero - reach, 0), min(zero + reach, len(kept))
            if stop - start >= levels:
                candidates[start, stop] = brute_divergence(kept, start, stop, levels)
        low, high = entropy_range(made, levels)
        if not candidates:
            assert (low, high) == made.full_range()
            return
        found = {key: value for key, value in candidates.items() if made.limits(*key) == (low, high)}
        assert min(found.values()) <= min(candidates.values()) + 1e-8

    def test_clips_a_long_tail_and_not_a_flat_distribution(self) -> None:
        rng = np.random.default_rng(0)
        tail = np.abs(rng.standard_t(3, size=100_000))
        flat = rng.uniform(0, 1, size=100_000)
        assert entropy_range(histogram_of(tail))[1] < 0.8 * tail.max()
        assert entropy_range(histogram_of(flat))[1] > 0.99

    @pytest.mark.parametrize("bins", [2048, 8192])
    def test_a_constant_background_does_not_make_the_range_collapse(self, bins: int) -> None:
        rng = np.random.default_rng(0)
        background = np.repeat(rng.uniform(0.1, 0.6, size=24), 20_000)
        image = np.abs(rng.normal(scale=1.5, size=200_000))
        low, high = entropy_range(histogram_of(np.concatenate([background, image]), bins=bins))
        assert low == 0.0
        assert np.mean(image > high) < 0.02

    def test_the_bound_of_an_activation_function_is_kept(self) -> None:
        x = np.clip(np.random.default_rng(0).normal(4, 3, size=100_000), 0, 6)
        assert entropy_range(histogram_of(x)) == (0.0, 6.0)


class TestSquaredError:
    @pytest.mark.parametrize("name", ["normal", "laplace", "relu", "gamma", "student"])
    def test_expected_error_is_that_of_real_quantization(self, name: str) -> None:
        x = sample(name)
        error = Error(histogram_of(x), 256)
        for low, high in [(-1.0, 1.0), (-2.5, 4.0), (-0.3, 3.0), (min(float(x.min()), 0.0), float(x.max()))]:
            real = float(((x - quantized(x, low, high)) ** 2).mean())
            assert error.total(low, high) == pytest.approx(real, rel=0.05)

    @pytest.mark.parametrize("name", ["normal", "laplace", "relu", "gamma", "student"])
    def test_range_is_as_good_as_the_best_of_a_fine_grid(self, name: str) -> None:
        x = sample(name)[:20_000]
        made = histogram_of(x, bins=256)
        error = Error(made, 16)
        full_low, full_high = made.full_range()
        fractions = np.linspace(0, 1, 81)
        lows = fractions * full_low if full_low else [0.0]
        best = min(error.total(low, high) for low in lows for high in fractions[1:] * full_high)
        assert error.total(*least_squares_range(made, 16)) <= 1.01 * best

    def test_clips_more_the_fewer_levels_there_are(self) -> None:
        made = histogram_of(sample("laplace"))
        tops = [least_squares_range(made, levels)[1] for levels in (4, 16, 64, 256)]
        assert tops == sorted(tops)
        assert tops[0] < 0.5 * tops[-1]

    def test_zeros_do_not_pull(self) -> None:
        x = sample("relu")
        sparse = np.concatenate([x, np.zeros(20 * len(x), np.float32)])
        assert least_squares_range(histogram_of(sparse)) == least_squares_range(histogram_of(x))


def sample(name: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    drawn: dict[str, Callable[[], np.ndarray]] = {
        "normal": lambda: rng.normal(size=100_000),
        "laplace": lambda: rng.laplace(size=100_000),
        "relu": lambda: np.maximum(rng.normal(0.5, 1, size=100_000), 0),
        "gamma": lambda: rng.gamma(2.0, size=100_000) - 0.3,
        "student": lambda: rng.standard_t(4, size=100_000),
    }
    return drawn[name]().astype(np.float32)


HALF = np.finfo(np.float16)
AWKWARD: dict[str, Any] = {
    "zeros": np.zeros(500),
    "negative zero": np.full(3, -0.0),
    "one value": [0.7],
    "one negative value": [-0.7],
    "constant": np.full(500, 3.0),
    "constant on a bin edge": np.full(500, 4.0),
    "two values": [-1.0, 2.0],
    "huge outlier": np.append(np.random.default_rng(0).normal(size=5000), 1e30),
    "huge negative outlier": np.append(np.random.default_rng(0).normal(size=5000), -1e30),
    "denormals": np.arange(-50, 80) * SMALLEST,
    "one denormal": [SMALLEST],
    "float32 limits": [-LARGEST, LARGEST, 1.0],
    "float16 limits": np.array([HALF.max, -HALF.max, HALF.smallest_subnormal, 1.0], np.float16),
    "never negative": np.abs(np.random.default_rng(0).normal(size=5000)),
    "never positive": -np.abs(np.random.default_rng(0).normal(size=5000)),
    "far from zero": np.random.default_rng(0).normal(1000, 1, size=5000),
}


@pytest.mark.parametrize("method", METHODS)
class TestEveryMethod:
    @pytest.mark.parametrize("case", AWKWARD)
    def test_awkward_values_have_a_range(self, method: str, case: str) -> None:
        values = np.asarray(AWKWARD[case])
        values = values if values.dtype == np.float16 else values.astype(np.float32)
        made = histogram_of(values, dtype=values.dtype)
        low, high = METHODS[method](made)
        assert min(float(values.min()), 0.0) <= low <= 0.0 <= high <= max(float(values.max()), 0.0)
        assert (low < high) == bool(values.any())
        if values.min() >= 0:
            assert low == 0.0

    @settings(max_examples=40, deadline=None)
    @given(tensors)
    def test_any_values_have_a_range_that_holds_zero(self, method: str, values: list[float]) -> None:
        low, high = METHODS[method](histogram_of(values))
        assert min(*values, 0.0) <= low <= 0.0 <= high <= max(*values, 0.0)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_constant_values_are_quantized_without_error(self, method: str, sign: int) -> None:
        x = np.full(100, 3.7 * sign, np.float32)
        low, high = METHODS[method](histogram_of(x))
        assert np.abs(quantized(x, low, high) - x).max() < 1e-5

    @pytest.mark.parametrize("power", [-100, -3, 5, 90])
    def test_range_scales_with_the_values(self, method: str, power: int) -> None:
        x = sample("gamma")[:5000]
        low, high = METHODS[method](histogram_of(x))
        scaled = METHODS[method](histogram_of(x * np.float32(2.0**power)))
        assert scaled == pytest.approx((low * 2.0**power, high * 2.0**power), rel=1e-12)
