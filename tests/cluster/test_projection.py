from __future__ import annotations

import numpy as np
import pytest

from edgemill.cluster.codebook import fit, recognise, to_rows
from edgemill.cluster.projection import Place, Projection
from edgemill.recipe import CentroidStart
from edgemill.tf import fresh, keras, tf


def place(clusters: int = 9, pruned: bool = False) -> Place:
    fresh(0)
    layer = keras.layers.Dense(12, name="layer")
    layer.build((None, 100))
    rows = np.random.default_rng(0).normal(size=(100, 12)).astype(np.float32)
    if pruned:
        rows[np.abs(rows) < 0.7] = 0
    layer.kernel.assign(rows)
    shared = fit(rows, clusters, CentroidStart.KMEANS, np.random.default_rng(0), pruned)
    fixed = rows == 0 if pruned else np.zeros(rows.shape, bool)
    return Place("layer", layer, layer.kernel, (1,), shared, fixed)


def hidden_at_levels(given: Place) -> Projection:
    """A projection whose hidden weights start on their levels, as in a model that came clustered."""
    given.kernel.assign(given.shared.rows)
    return Projection([given], moving=0)


def test_a_level_moves_by_the_mean_of_its_weights_updates_not_by_their_sum():
    given = place()
    projection = hidden_at_levels(given)
    index, scale = given.shared.index, given.shared.scale
    members = np.abs(index) == 2
    size = np.where(members, np.random.default_rng(1).normal(0.02, 0.01, index.shape), 0)
    given.kernel.assign_add((size * scale * np.sign(index)).astype(np.float32))
    projection.after_step()
    levels = projection._kernels[0].levels.numpy()
    # What the channels' scales took over; the last level is 1 whatever happens.
    factor = (projection.shared()[0].scale / scale).mean()
    assert members.sum() > 100
    assert factor * levels[2] - given.shared.levels[2] == pytest.approx(0.02, rel=0.25)
    np.testing.assert_allclose(factor * np.delete(levels, 2), np.delete(given.shared.levels, 2), atol=0.012)
    assert levels[0] == 0
    assert levels[-1] == 1


def test_the_scale_of_a_channel_follows_its_weights():
    given = place()
    projection = hidden_at_levels(given)
    given.kernel.assign(given.shared.rows * np.linspace(0.8, 1.3, 12, dtype=np.float32))
    projection.after_step()
    (now,) = projection.shared()
    np.testing.assert_allclose(now.scale / given.shared.scale, np.linspace(0.8, 1.3, 12), rtol=0.02)


def test_small_updates_add_up_until_a_weight_changes_its_level():
    given = place()
    projection = Projection([given], moving=1000)
    step = tf.function(projection.after_step)
    rows = given.shared.rows
    before = given.shared.index.copy()
    # One weight of channel 0 is drawn inwards, by far less than a step of the grid each time.
    (drawn, *_) = np.flatnonzero(np.abs(before[:, 0]) == 2)
    drift = np.zeros_like(rows)
    drift[drawn, 0] = -np.sign(rows[drawn, 0]) * 1e-3 * given.shared.scale[0]
    for _ in range(600):
        given.kernel.assign_add(drift)
        step()
    (now,) = projection.shared()
    assert now.index[drawn, 0] != before[drawn, 0]
    assert (now.index[:, 1:] != before[:, 1:]).mean() < 0.02


def test_weights_keep_their_levels_after_the_moving_part():
    given = place()
    projection = Projection([given], moving=3)
    step = tf.function(projection.after_step)
    generator = np.random.default_rng(2)
    held = []
    for _ in range(6):
        given.kernel.assign_add(generator.normal(0, 0.1, given.kernel.shape).astype(np.float32))
        step()
        held.append(projection.shared()[0].index)
    assert not np.array_equal(held[0], held[2])
    np.testing.assert_array_equal(held[2], held[5])


@pytest.mark.parametrize("clusters", [3, 8, 9, 16])
def test_any_updates_leave_the_kernel_on_its_levels_and_zeros_zero(clusters):
    given = place(clusters, pruned=True)
    zeros = given.fixed
    projection = Projection([given], moving=10)
    generator = np.random.default_rng(3)
    for _ in range(20):
        given.kernel.assign_add(generator.normal(0, 0.3, given.kernel.shape).astype(np.float32))
        projection.after_step()
        kernel = given.kernel.numpy()
        found = recognise(to_rows(kernel, (1,)))
        assert found is not None
        assert len(np.unique(found.steps)) <= clusters
        assert (kernel[zeros] == 0).all()
        np.testing.assert_allclose(projection.shared()[0].rows, kernel, rtol=1e-6)
