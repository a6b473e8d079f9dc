from __future__ import annotations

import json

import numpy as np
import pytest

from edgemill.data.dataset import Dataset, SplitName
from edgemill.distill import AnswersSettings
from edgemill.distill.answers import run
from edgemill.errors import InvariantError, RecipeError
from edgemill.recipe import Augment, Optimizer, Task, Training
from edgemill.tf import fresh
from edgemill.train.answers import ARRAY, MANIFEST, Answers, Views, write
from edgemill.train.batches import Batches
from edgemill.train.loop import Objective, train
from edgemill.train.teacher import Teacher
from tests.train.digits import context, convnet, given, trained_teacher

RULE = Augment(shift=1, views=3)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("answers")
    trained_teacher(folder)
    return folder


@pytest.fixture(scope="module")
def data(home):
    return Dataset(home / "data")


@pytest.fixture(scope="module")
def teacher(home):
    return Teacher(home / "teacher.onnx")


def answered(home, folder, rule=RULE, task=Task.CLASSIFICATION, seed=3):
    inputs = {"teacher": given(home / "teacher.onnx", "onnx"), "data": given(home / "data", "dataset")}
    return run(AnswersSettings(task=task, augment=rule), inputs, context(folder, seed))


def batches(data, teacher, seed=3, answers=None, rule=RULE, size=100):
    settings = Training(batch_size=size, augment=rule)
    return Batches(data, data.labels(SplitName.TRAIN), settings, teacher, seed, logits=True, answers=answers)


class Silent:
    """A teacher that must not be asked."""

    features = ()


def test_kept_answers_are_the_teachers_to_the_images_that_training_shows(home, data, teacher, tmp_path):
    outputs = answered(home, tmp_path)
    answers = Answers.read(outputs.files["answers"].path)
    assert outputs.facts == {"views": 3, "samples": 1200, "logits": True}
    assert answers.values.shape == (3, 1200, 10)
    for epoch in (0, 2, 4):
        for batch in batches(data, Silent(), answers=answers).epoch(epoch):
            np.testing.assert_allclose(batch.soft, teacher.logits(batch.x), atol=1e-4)


def test_an_epoch_shows_its_view_and_views_come_round(data):
    def epoch(number, seed=3):
        parts = list(batches(data, None, seed, size=1200).epoch(number))
        order = np.random.default_rng([seed, number]).permutation(1200)
        return parts[0].x[np.argsort(order)]

    np.testing.assert_array_equal(epoch(0), epoch(3))
    np.testing.assert_array_equal(epoch(1), Views(data, RULE, 3).features(1, np.arange(1200)))
    assert not np.array_equal(epoch(0), epoch(1))
    assert not np.array_equal(epoch(1), epoch(1, seed=4))


def test_how_a_sample_looks_does_not_depend_on_its_batch(data):
    views = Views(data, RULE, 0)
    whole = views.features(2, np.arange(1200))
    chosen = np.random.default_rng(0).permutation(1200)[:37]
    np.testing.assert_array_equal(views.features(2, chosen), whole[chosen])


def test_without_any_change_there_is_one_view(home, data, teacher, tmp_path):
    answers = Answers.read(answered(home, tmp_path, Augment(views=5)).files["answers"].path)
    assert len(answers.values) == 1
    np.testing.assert_allclose(answers.values[0], teacher.logits(data.features(SplitName.TRAIN)), atol=1e-4)


def test_training_is_the_same_with_and_without_kept_answers(home, data, teacher, tmp_path):
    answers = Answers.read(answered(home, tmp_path / "answers").files["answers"].path)
    settings = Training(epochs=4, batch_size=64, learning_rate=0.05, optimizer=Optimizer.SGD, augment=RULE)
    weights = []
    for name, known in (("without", None), ("with", answers)):
        fresh(0)
        model = convnet()
        objective = Objective(Task.CLASSIFICATION, teacher, 2.0, 0.5, answers=known)
        train(model, data, settings, objective, context(tmp_path / name))
        weights.append(model.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_views_are_those_of_the_answers_whatever_the_seed_of_the_training(home, data, tmp_path):
    answers = Answers.read(answered(home, tmp_path, seed=9).files["answers"].path)
    other = next(iter(batches(data, Silent(), seed=4, answers=answers, size=1200).epoch(0)))
    order = np.random.default_rng([4, 0]).permutation(1200)
    np.testing.assert_array_equal(other.x, Views(data, RULE, 9).features(0, order))


def test_values_are_kept_as_they_are_and_equal_runs_give_equal_files(home, data, teacher, tmp_path):
    folders = [answered(home, tmp_path / name, RULE, Task.REGRESSION).files["answers"].path for name in ("a", "b")]
    answers = Answers.read(folders[0])
    assert not answers.logits
    np.testing.assert_allclose(answers.values.sum(axis=-1), 1, atol=1e-4)  # its softmax, not its logits
    for name in (ARRAY, MANIFEST):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    assert json.loads((folders[0] / MANIFEST).read_text())["seed"] == 3


def test_answers_to_other_samples_are_refused(home, data, tmp_path):
    answers = Answers.read(answered(home, tmp_path).files["answers"].path)
    for rule in (Augment(shift=1, views=4), Augment(shift=2, views=3), Augment(shift=1), Augment()):
        with pytest.raises(InvariantError, match="other samples"):
            batches(data, Silent(), answers=answers, rule=rule)
    with pytest.raises(InvariantError, match="other samples"):
        Batches(data, None, Training(augment=RULE), Silent(), 3, logits=False, answers=answers)


def test_views_without_end_and_answers_without_measure_are_refused(home, data, teacher, tmp_path):
    with pytest.raises(RecipeError, match="new way in every epoch") as caught:
        answered(home, tmp_path / "a", Augment(shift=1))
    assert caught.value.where == "augment.views"
    with pytest.raises(RecipeError, match="too large"):
        write(tmp_path, Views(data, Augment(shift=1, views=10**6), 0), teacher, True, 1200, lambda share: None)
    assert not (tmp_path / ARRAY).exists()


def test_a_change_of_what_is_no_image_is_refused(tmp_path, data):
    class Table:
        sample_shape = (64,)

        def raw(self, split):
            return np.zeros((5, 64), np.uint8)

    with pytest.raises(RecipeError, match="Only images"):
        Views(Table(), RULE, 0)  # type: ignore[arg-type]
