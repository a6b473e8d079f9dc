from __future__ import annotations

import numpy as np
import pytest

from edgemill.data.dataset import Dataset, SplitName, write_dataset
from edgemill.distill.narrow import narrow
from edgemill.errors import DataError, QualityGateError, RecipeError
from edgemill.ingest.export import keras_to_onnx
from edgemill.recipe import DistillMethod, Optimizer, Preprocess, Task, Training
from edgemill.tf import fresh, keras, tf
from edgemill.train.features import FeatureLoss, attention_map, hint_loss, match
from edgemill.train.loop import Objective, train
from edgemill.train.objective import Answer, answer_kind, loss_of, to_logits
from edgemill.train.teacher import Teacher
from tests.train.digits import context, convnet, trained_teacher, write_digits

SHORT = Training(epochs=2, batch_size=64, learning_rate=0.003)
PLAIN = Objective(Task.CLASSIFICATION, None)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    trained_teacher(folder)
    return folder


@pytest.fixture(scope="module")
def data(home):
    return Dataset(home / "data")


@pytest.fixture(scope="module")
def teacher(home):
    return Teacher(home / "teacher.onnx")


def test_teacher_answers_as_its_keras_model_and_gives_logits(home, data, teacher):
    x = data.features(SplitName.VALIDATION)
    model = keras.models.load_model(home / "teacher.keras", compile=False)
    probabilities = np.asarray(model(x))
    assert teacher.final == "softmax"
    np.testing.assert_allclose(teacher.outputs(x), probabilities, atol=1e-5)
    np.testing.assert_allclose(np.asarray(tf.nn.softmax(teacher.logits(x))), probabilities, atol=1e-5)
    assert (probabilities.argmax(1) == data.labels(SplitName.VALIDATION)).mean() > 0.9


def test_no_soft_weight_is_plain_training(data, teacher, tmp_path):
    weights = []
    for name, objective in (("a", PLAIN), ("b", Objective(Task.CLASSIFICATION, teacher, 1.0, 0.0))):
        fresh(0)
        model = convnet()
        train(model, data, SHORT, objective, context(tmp_path / name))
        weights.append(model.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_loss_is_keras_cross_entropy_and_hintons_divergence():
    rng = np.random.default_rng(0)
    student, soft = rng.normal(size=(2, 16, 5)).astype(np.float32) * 3
    labels = rng.integers(0, 5, 16)
    p = tf.nn.softmax(student)
    hard = keras.losses.SparseCategoricalCrossentropy()(labels, p)
    t = 4.0
    kl = keras.losses.KLDivergence()(tf.nn.softmax(soft / t), tf.nn.softmax(student / t))
    objective = Objective(Task.CLASSIFICATION, object(), t, 0.3)  # type: ignore[arg-type]
    expected = 0.7 * hard + 0.3 * t * t * kl
    for kind, output in ((Answer.LOGITS, student), (Answer.SOFTMAX, p)):
        np.testing.assert_allclose(loss_of(objective, kind, output, labels, soft), expected, rtol=1e-4)


def test_softmax_and_logits_students_have_equal_gradients():
    x = tf.Variable(np.random.default_rng(1).normal(size=(8, 6)).astype(np.float32) * 20)
    soft = np.random.default_rng(2).normal(size=(8, 6)).astype(np.float32)
    objective = Objective(Task.CLASSIFICATION, object(), 2.0, 0.5)  # type: ignore[arg-type]
    gradients = []
    for kind in (Answer.LOGITS, Answer.SOFTMAX):
        with tf.GradientTape() as tape:
            output = tf.nn.softmax(x) if kind is Answer.SOFTMAX else x
            loss = loss_of(objective, kind, output, np.arange(8) % 6, soft)
        gradients.append(tape.gradient(loss, x).numpy())
    np.testing.assert_allclose(*gradients, atol=1e-5)
    sigmoid = to_logits(tf.sigmoid(x / 10), Answer.SIGMOID)
    np.testing.assert_allclose(sigmoid, x / 10, atol=1e-3)


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        ([keras.layers.Dense(10)], Answer.LOGITS),
        ([keras.layers.Dense(10, activation="softmax")], Answer.SOFTMAX),
        ([keras.layers.Dense(10), keras.layers.Softmax()], Answer.SOFTMAX),
        ([keras.layers.Dense(10), keras.layers.Activation("softmax")], Answer.SOFTMAX),
        ([keras.Sequential([keras.layers.Dense(10, activation="softmax")])], Answer.SOFTMAX),
        ([keras.layers.Dense(10), keras.layers.Lambda(tf.nn.softmax)], Answer.SOFTMAX),
        ([keras.layers.Dense(10, activation="sigmoid")], Answer.SIGMOID),
    ],
    ids=["logits", "fused", "Softmax", "Activation", "nested", "lambda", "sigmoid"],
)
def test_the_final_activation_is_found(data, end, kind):
    image = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(image)
    for layer in end:
        x = layer(x)
    assert answer_kind(keras.Model(image, x), Task.CLASSIFICATION, data) is kind


def test_batch_normalization_statistics_move(data, tmp_path):
    fresh(0)
    model = convnet()
    before = model.get_layer("stem_bn").moving_mean.numpy().copy()
    train(model, data, SHORT.model_copy(update={"epochs": 1}), PLAIN, context(tmp_path))
    assert not np.allclose(before, model.get_layer("stem_bn").moving_mean.numpy())


def test_distillation_without_labels_agrees_with_the_teacher(home, teacher, tmp_path):
    unlabelled = Dataset(write_digits(tmp_path / "data", labelled=False))
    fresh(0)
    model = convnet(None)
    settings = Training(epochs=4, batch_size=32, learning_rate=0.005)
    history = train(model, unlabelled, settings, Objective(Task.UNLABELLED, teacher, 2.0, 1.0), context(tmp_path))
    x = unlabelled.features(SplitName.VALIDATION)
    agreement = (np.asarray(model(x)).argmax(1) == teacher.logits(x).argmax(1)).mean()
    assert history.best_score == pytest.approx(agreement)
    assert agreement > 0.8


def test_regression_learns_its_targets(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 3)).astype(np.float32)
    y = (x @ np.array([1.0, -2.0, 0.5]) + 3).astype(np.float32)
    parts = {SplitName.TRAIN: slice(0, 400), SplitName.VALIDATION: slice(400, 500)}
    parts |= {SplitName.CALIBRATION: slice(500, 550), SplitName.TEST: slice(550, 600)}
    (tmp_path / "data").mkdir()
    write_dataset(
        tmp_path / "data", {s: x[p] for s, p in parts.items()}, {s: y[p] for s, p in parts.items()}, Preprocess()
    )
    fresh(0)
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    settings = Training(epochs=15, batch_size=20, learning_rate=0.05, optimizer=Optimizer.SGD)
    data = Dataset(tmp_path / "data")
    history = train(model, data, settings, Objective(Task.REGRESSION, None), context(tmp_path))
    assert history.best_score > -0.05
    np.testing.assert_allclose(model.get_weights()[0].ravel(), [1, -2, 0.5], atol=0.05)
    wide = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(DataError, match="targets"):
        train(wide, data, settings, Objective(Task.REGRESSION, None), context(tmp_path / "wide"))


def test_divergence_ends_the_run_at_once_with_epoch_and_step(data, tmp_path):
    fresh(0)
    settings = Training(epochs=3, batch_size=64, learning_rate=1e20, optimizer=Optimizer.SGD)
    with pytest.raises(QualityGateError, match="diverged") as caught:
        train(convnet(), data, settings, PLAIN, context(tmp_path))
    assert "epoch 1, step" in str(caught.value)


def test_nan_in_the_data_ends_the_run_at_once(tmp_path):
    def spoil(x):
        x[7, 3, 3, 0] = np.nan
        return x

    data = Dataset(write_digits(tmp_path / "data", spoil))
    fresh(0)
    with pytest.raises(QualityGateError, match="diverged"):
        train(convnet(), data, SHORT, PLAIN, context(tmp_path))


def test_a_label_outside_the_classes_is_refused(data, tmp_path):
    fresh(0)
    image = keras.Input((8, 8, 1))
    model = keras.Model(image, keras.layers.Dense(5)(keras.layers.Flatten()(image)))
    with pytest.raises(DataError, match="label") as caught:
        train(model, data, SHORT, PLAIN, context(tmp_path))
    assert (caught.value.expected, caught.value.got) == ("0..4", "0..9")


def test_patience_stops_and_the_best_epoch_is_kept(data, tmp_path):
    """A learning rate of nearly nothing: the score never improves, ties keep the later epoch."""
    fresh(0)
    model = convnet()
    for layer in model.layers:
        layer.trainable = layer.name == "answer"
    inside = {}

    class Spoil(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                inside["weights"] = self.model.get_weights()
            else:
                self.model.get_layer("answer").bias.assign(np.eye(10, dtype=np.float32)[0] * 1e3)

    settings = Training(epochs=10, batch_size=64, learning_rate=0.01, patience=2)
    history = train(model, data, settings, PLAIN, context(tmp_path), callbacks=[Spoil()])
    assert history.stopped_early
    assert (history.best_epoch, len(history.epochs)) == (0, 3)
    for a, b in zip(inside["weights"], model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_keep_from_ignores_earlier_epochs(data, tmp_path):
    fresh(0)
    model = convnet()
    epochs = SHORT.model_copy(update={"epochs": 3, "learning_rate": 1e-9})
    assert train(model, data, epochs, PLAIN, context(tmp_path), keep_from=2).best_epoch == 2


def test_after_step_projects_the_weights_within_the_compiled_step(data, tmp_path):
    fresh(0)
    model = convnet()
    kernel = model.get_layer("pointwise").kernel
    mask = (np.random.default_rng(0).random(kernel.shape) < 0.5).astype(np.float32)
    train(model, data, SHORT, PLAIN, context(tmp_path), after_step=lambda: kernel.assign(kernel * mask))
    assert (kernel.numpy()[mask == 0] == 0).all()
    assert (kernel.numpy()[mask == 1] != 0).all()


@pytest.mark.parametrize("optimizer", list(Optimizer))
def test_weight_decay_shrinks_kernels_by_its_share_of_the_learning_rate_and_nothing_else(data, tmp_path, optimizer):
    """One step from equal weights: the difference is exactly the decay, whatever the gradient was."""
    after = []
    for decay in (0.0, 0.01):
        fresh(0)
        model = convnet()
        before = [variable.numpy() for variable in model.trainable_variables]
        settings = Training(epochs=1, batch_size=1200, learning_rate=0.1, optimizer=optimizer, weight_decay=decay)
        train(model, data, settings, PLAIN, context(tmp_path / f"{decay}"))
        after.append([variable.numpy() for variable in model.trainable_variables])
    for start, plain, decayed in zip(before, *after, strict=True):
        shrunk = 0.1 * 0.01 * start if start.ndim > 1 else 0 * start
        np.testing.assert_allclose(plain - decayed, shrunk, atol=1e-6)


def test_progress_tells_epoch_loss_and_score(data, tmp_path):
    fresh(0)
    surroundings = context(tmp_path)
    train(convnet(), data, SHORT, PLAIN, surroundings)
    fractions = [fraction for fraction, _ in surroundings.report.messages]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    text = " | ".join(message for _, message in surroundings.report.messages)
    for part in ("epoch 1/2", "epoch 2/2", "loss ", "validation 0."):
        assert part in text


def test_a_teacher_is_needed_to_learn_from_one():
    with pytest.raises(RecipeError, match="teacher"):
        Objective(Task.CLASSIFICATION, None, 2.0, 0.5)
    with pytest.raises(RecipeError, match="no labels"):
        Objective(Task.UNLABELLED, object(), 2.0, 0.5)  # type: ignore[arg-type]


def test_feature_maps_of_a_converted_graph_equal_the_keras_layers(home, data):
    model = keras.models.load_model(home / "teacher.keras", compile=False)
    x = data.features(SplitName.VALIDATION, 0, 4)
    maps = Teacher(home / "teacher.onnx").feature_maps(x[:1])
    pairs = match(DistillMethod.ATTENTION, model, maps)
    assert [pair.teacher.spatial for pair in pairs] == [(8, 8), (4, 4)]
    assert [pair.layer for pair in pairs] == ["block_relu", "pointwise"]
    answers = Teacher(home / "teacher.onnx", tuple(pair.teacher.tensor for pair in pairs)).answers(x)
    for pair, found in zip(pairs, answers[1:], strict=True):
        expected = np.asarray(keras.Model(model.input, model.get_layer(pair.layer).output)(x))
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_feature_losses_vanish_for_equal_maps_only():
    a, b = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 6)).astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(attention_map(a), axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(attention_map(a), attention_map(5 * a), rtol=1e-5)
    assert float(hint_loss(a, a)) == 0
    assert float(hint_loss(b, a)) == pytest.approx(0.5 * ((a - b) ** 2).sum() / (a**2).sum() / 16, rel=1e-4)


def distance(method, student, teacher_maps, pair, x):
    """What the method brings closer: attention maps, or the teacher's map and its best linear fit."""
    own = np.asarray(keras.Model(student.input, student.get_layer(pair.layer).output)(x))
    if method is DistillMethod.ATTENTION:
        return float(np.square(attention_map(own) - attention_map(teacher_maps)).sum())
    flat, wanted = own.reshape(-1, own.shape[-1]), teacher_maps.reshape(-1, teacher_maps.shape[-1])
    fit, *_ = np.linalg.lstsq(np.c_[flat, np.ones(len(flat))], wanted, rcond=None)
    return float(np.square(np.c_[flat, np.ones(len(flat))] @ fit - wanted).mean())


@pytest.mark.parametrize("method", [DistillMethod.ATTENTION, DistillMethod.FITNETS])
def test_a_feature_loss_brings_the_maps_closer(home, data, tmp_path, method):
    x = data.features(SplitName.VALIDATION)
    original = keras.models.load_model(home / "teacher.keras", compile=False)
    gaps = []
    for weight in (0.0, 100.0):
        fresh(0)
        student = narrow(original, 0.5)
        pairs = match(method, student, Teacher(home / "teacher.onnx").feature_maps(x[:1]))
        features = FeatureLoss(method, weight, pairs)
        guide = Teacher(home / "teacher.onnx", features.tensors)
        settings = Training(epochs=4, batch_size=32, learning_rate=0.01)
        objective = Objective(Task.CLASSIFICATION, guide, 2.0, 0.5, features)
        train(student, data, settings, objective, context(tmp_path / str(weight)))
        gaps.append(distance(method, student, guide.answers(x)[-1], pairs[-1], x))
        assert not any("hint" in variable.name for variable in student.variables)
    assert gaps[1] < 0.8 * gaps[0]


def test_no_common_map_is_refused(home, data):
    image = keras.Input((8, 8, 1))
    student = keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(image)))
    maps = Teacher(home / "teacher.onnx").feature_maps(data.features(SplitName.TRAIN, 0, 1))
    with pytest.raises(RecipeError, match="equal size"):
        match(DistillMethod.ATTENTION, student, maps)


def test_a_teacher_that_is_no_softmax_keeps_its_output(tmp_path, data):
    fresh(0)
    model = convnet(None)
    keras_to_onnx(model, tmp_path / "model.onnx")
    linear = Teacher(tmp_path / "model.onnx")
    x = data.features(SplitName.TEST, 0, 5)
    assert linear.final == "linear"
    np.testing.assert_array_equal(linear.logits(x), linear.outputs(x))
