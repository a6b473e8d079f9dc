from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import RecipeError
from edgemill.recipe import Augment, Training
from edgemill.train import snapshot
from edgemill.train.augment import augment, channels_first, draw, image_axes
from edgemill.train.batches import Batches
from tests.train.digits import write_digits


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return Dataset(write_digits(tmp_path_factory.mktemp("batches") / "data"))


def batches(data, seed=0, batch_size=128, **rule):
    labels = data.labels(SplitName.TRAIN)
    return Batches(data, labels, Training(batch_size=batch_size, augment=Augment(**rule)), None, seed, logits=True)


def test_an_epoch_is_every_sample_once_with_its_own_label(data):
    seen = list(batches(data, batch_size=100).epoch(0))
    x = np.concatenate([batch.x for batch in seen])
    y = np.concatenate([batch.y for batch in seen])
    order = np.lexsort(x.reshape(len(x), -1).T)
    wanted = data.features(SplitName.TRAIN)
    wanted_order = np.lexsort(wanted.reshape(len(wanted), -1).T)
    np.testing.assert_array_equal(x[order], wanted[wanted_order])
    np.testing.assert_array_equal(y[order], data.labels(SplitName.TRAIN)[wanted_order])


def test_incomplete_last_batch_is_left_out_unless_it_is_the_only_one(data):
    assert [len(batch.x) for batch in batches(data, batch_size=500).epoch(0)] == [500, 500]
    assert [len(batch.x) for batch in batches(data, batch_size=5000).epoch(0)] == [1200]


def test_order_and_augmentation_depend_on_seed_and_epoch_only(data):
    def material(seed, epoch, maker=None):
        return np.concatenate([b.x for b in (maker or batches(data, seed, flip=True, shift=2)).epoch(epoch)])

    used = batches(data, 1, flip=True, shift=2)
    material(1, 0, used)
    np.testing.assert_array_equal(material(1, 4, used), material(1, 4))
    assert not np.array_equal(material(1, 4), material(1, 5))
    assert not np.array_equal(material(1, 4), material(2, 4))


@given(st.integers(1, 4), st.integers(0, 2**31), st.sampled_from([(6, 5), (6, 5, 3), (3, 7, 6)]))
@settings(max_examples=40, deadline=None)
def test_shift_moves_the_picture_and_pads_with_zeros(shift, seed, shape):
    images = np.random.default_rng(seed).integers(1, 256, size=(4, *shape)).astype(np.uint8)
    rule = Augment(shift=shift)
    moved = augment(images, rule, draw(len(images), rule, np.random.default_rng(seed)))
    height, width = image_axes(shape)
    frame = [(0, 0)] * len(shape)
    frame[height] = frame[width] = (shift, shift)
    for before, after in zip(images, moved, strict=True):
        padded = np.pad(before, frame)
        windows = [
            np.take(np.take(padded, range(dy, dy + shape[height]), height), range(dx, dx + shape[width]), width)
            for dy in range(2 * shift + 1)
            for dx in range(2 * shift + 1)
        ]
        assert any(np.array_equal(after, window) for window in windows)


def test_flip_mirrors_about_half_of_the_images_left_to_right():
    images = np.arange(200 * 6 * 5 * 3).reshape(200, 6, 5, 3)
    rule = Augment(flip=True)
    flipped = augment(images, rule, draw(len(images), rule, np.random.default_rng(0)))
    mirrored = [np.array_equal(new, old[:, ::-1]) for old, new in zip(images, flipped, strict=True)]
    same = [np.array_equal(new, old) for old, new in zip(images, flipped, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 70 < sum(mirrored) < 130


def test_layout_is_read_from_the_shape():
    assert channels_first((3, 32, 32))
    assert not channels_first((32, 32, 3))
    assert image_axes((28, 28)) == (0, 1)
    with pytest.raises(RecipeError, match="Only images"):
        image_axes((64,))


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), max_size=5), max_size=4))
@settings(max_examples=25, deadline=None)
def test_a_snapshot_reads_back_what_was_written(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("snapshot")
    arrays = tuple(np.asarray(value, np.float32) for value in values)
    written = snapshot.Snapshot(arrays, arrays[:1], ({"loss": 1.5, "score": 0.5},), 0)
    snapshot.save(folder, "run", written)
    read = snapshot.load(folder, "run")
    assert read is not None
    assert (read.epochs, read.best_epoch, len(read.state)) == (written.epochs, 0, len(arrays))
    for a, b in zip(read.state + read.best, arrays + arrays[:1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert snapshot.load(folder, "another run") is None


def test_a_damaged_snapshot_is_no_snapshot(tmp_path):
    snapshot.save(tmp_path, "run", snapshot.Snapshot((np.ones(1000),), (), (), -1))
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 5):
        file.write_bytes(whole[:length])
        assert snapshot.load(tmp_path, "run") is None
