from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgemill.cluster.codebook import GRID, Shared, fit, from_rows, recognise, to_rows
from edgemill.recipe import CentroidStart

FINITE = st.floats(-1e3, 1e3, width=32).filter(lambda value: value == 0 or abs(value) > 1e-3)
ROWS = arrays.arrays(np.float32, st.tuples(st.integers(2, 40), st.integers(1, 6)), elements=FINITE)


def values_of(shared: Shared) -> int:
    return len(np.unique(shared.steps))


def normal(weights: int, channels: int, seed: int = 0) -> np.ndarray:
    """Weights whose channels differ much in scale, as after a folded normalization."""
    generator = np.random.default_rng(seed)
    scales = np.exp(generator.normal(0, 1.5, channels))
    return (generator.normal(size=(weights, channels)) * scales).astype(np.float32)


def int8(rows: np.ndarray) -> np.ndarray:
    """Symmetric quantization with one step a channel, as onnxruntime and the LiteRT converter do it."""
    step = np.abs(rows).max(axis=0) / GRID
    return np.clip(np.rint(rows / np.where(step > 0, step, 1)), -GRID, GRID).astype(np.int8)


@settings(deadline=None)
@given(ROWS, st.integers(3, 128), st.sampled_from(CentroidStart), st.booleans())
def test_every_fit_keeps_its_promises(rows, clusters, start, pruned):
    shared = fit(rows, clusters, start, np.random.default_rng(0), pruned)
    assert values_of(shared) <= clusters
    alive = (rows != 0).any(axis=0) & (shared.scale > 0)
    assert (np.abs(shared.steps)[:, alive].max(axis=0) == GRID).all()
    assert (shared.rows[:, (rows == 0).all(axis=0)] == 0).all()
    if pruned:
        assert (shared.rows[rows == 0] == 0).all()
    assert np.isfinite(shared.rows).all()


@settings(deadline=None)
@given(
    st.integers(3, 40),
    st.integers(0, 5),
    arrays.arrays(np.float32, 8, elements=st.floats(-1e4, 1e4, width=32).filter(lambda x: abs(x) > 1e-4)),
)
def test_a_folded_factor_of_any_sign_adds_no_byte_and_the_levels_are_found_again(clusters, seed, factors):
    shared = fit(normal(60, 8, seed), clusters, CentroidStart.KMEANS, np.random.default_rng(seed), False)
    folded = shared.rows * factors
    assert len(np.unique(int8(folded))) <= clusters
    np.testing.assert_array_equal(np.abs(int8(folded)), np.abs(shared.steps))
    again = recognise(folded)
    assert again is not None
    np.testing.assert_array_equal(again.steps, shared.steps * np.sign(factors).astype(int))
    np.testing.assert_allclose(again.rows, folded, rtol=1e-5)


def test_values_shared_over_the_tensor_are_lost_by_folding_ours_are_not():
    rows = normal(500, 12)
    centres = np.quantile(rows, (np.arange(16) + 0.5) / 16)
    whole_tensor = centres[np.abs(rows[..., None] - centres).argmin(-1)].astype(np.float32)
    factors = np.exp(np.random.default_rng(1).normal(size=12)).astype(np.float32)
    ours = fit(rows, 16, CentroidStart.KMEANS, np.random.default_rng(0), False).rows
    assert len(np.unique(whole_tensor)) == 16
    assert len(np.unique(int8(whole_tensor * factors))) > 50
    assert len(np.unique(int8(ours * factors))) == 16


def test_weights_without_shared_levels_are_not_recognised():
    assert recognise(normal(100, 8)) is None
    assert recognise(np.zeros((20, 4), np.float32)) is None
    assert recognise(np.ones((1, 300), np.float32)) is None
    almost = fit(normal(100, 8), 16, CentroidStart.KMEANS, np.random.default_rng(0), False).rows.copy()
    almost[3, 2] *= 1.01
    assert recognise(almost) is None


def test_weights_on_the_whole_int8_grid_share_nothing():
    steps = np.random.default_rng(0).integers(-127, 128, (400, 8))
    steps[0] = 127
    assert recognise((steps / np.float32(127)).astype(np.float32)) is None


def test_more_clusters_are_nearer():
    rows = normal(800, 16)
    errors = [
        float(np.square(fit(rows, k, CentroidStart.KMEANS, np.random.default_rng(0), False).rows - rows).mean())
        for k in (3, 8, 16, 64)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02 * errors[0]


def test_zero_is_a_value_of_odd_numbers_and_of_pruned_weights():
    rows = normal(200, 8)
    half = rows * (np.abs(rows) > np.median(np.abs(rows), axis=0))
    zeros = {
        (k, pruned): int((fit(given, k, CentroidStart.KMEANS, np.random.default_rng(0), pruned).rows == 0).sum())
        for k, given, pruned in ((16, rows, False), (17, rows, False), (16, half, True), (17, half, True))
    }
    assert zeros[16, False] == 0
    assert zeros[17, False] > 0
    assert min(zeros[16, True], zeros[17, True]) >= (half == 0).sum()


@pytest.mark.parametrize(("shape", "axes"), [((3, 3, 4, 8), (3,)), ((2, 2, 5, 3), (2,)), ((6, 7), (1,))])
def test_rows_and_back(shape, axes):
    kernel = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    rows = to_rows(kernel, axes)
    assert rows.shape[1] == np.prod([shape[axis] for axis in axes])
    np.testing.assert_array_equal(rows[:, 1], np.take(kernel, 1, axis=axes[0]).ravel())
    np.testing.assert_array_equal(from_rows(rows, shape, axes), kernel)
