from __future__ import annotations

import sys

import numpy as np
import onnxruntime as ort
import pytest

from edgemill.data.dataset import Dataset, SplitName
from edgemill.distill import AnswersSettings, DistillSettings
from edgemill.distill.answers import run as answers
from edgemill.distill.families import build
from edgemill.distill.narrow import narrow, narrowed
from edgemill.distill.student import run
from edgemill.errors import CheckpointError, RecipeError
from edgemill.recipe import Augment, DistillMethod, Family, Student, Task
from edgemill.tf import fresh, keras, tf
from tests.train.digits import context, convnet, given, trained_teacher

layers = keras.layers


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distill")
    trained_teacher(folder)
    return folder


def inputs(home, with_keras=True):
    files = {"teacher": given(home / "teacher.onnx", "onnx"), "data": given(home / "data", "dataset")}
    return files | ({"keras": given(home / "teacher.keras", "keras")} if with_keras else {})


def settings(**changes):
    values = {
        "student": Student(width=0.5),
        "task": Task.CLASSIFICATION,
        "epochs": 6,
        "batch_size": 32,
        "learning_rate": 0.05,
    }
    return DistillSettings.model_validate(values | changes)


def test_a_narrowed_student_learns_and_is_exported(home, tmp_path):
    outputs = run(settings(), inputs(home), context(tmp_path))
    student = keras.models.load_model(outputs.files["keras"].path, compile=False)
    data = Dataset(home / "data")
    x, y = data.features(SplitName.VALIDATION), data.labels(SplitName.VALIDATION)
    answer = student.predict(x, verbose=0)
    assert outputs.facts["score"] == pytest.approx((answer.argmax(1) == y).mean())
    assert outputs.facts["score"] > 0.85
    assert outputs.facts["teacher_score"] > 0.9
    assert outputs.facts["parameters"] == student.count_params() < 0.4 * 3800
    session = ort.InferenceSession(outputs.files["onnx"].path)
    np.testing.assert_allclose(session.run(None, {session.get_inputs()[0].name: x})[0], answer, atol=1e-4)


def test_a_student_learns_the_same_from_answers_that_are_kept(home, tmp_path):
    rule = Augment(shift=1, views=2)
    kept = answers(AnswersSettings(task=Task.CLASSIFICATION, augment=rule), inputs(home), context(tmp_path / "kept"))
    learning = settings(augment=rule, epochs=3, weight_decay=0.001)
    weights = []
    for name, more in (("a", {}), ("b", {"answers": given(kept.files["answers"].path, "answers")})):
        outputs = run(learning, inputs(home) | more, context(tmp_path / name))
        weights.append(keras.models.load_model(outputs.files["keras"].path, compile=False).get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("method", [DistillMethod.ATTENTION, DistillMethod.FITNETS])
def test_feature_methods_name_what_they_compared(home, tmp_path, method):
    outputs = run(settings(method=method, epochs=2), inputs(home), context(tmp_path))
    pairs = outputs.facts["features"]["pairs"]
    assert len(pairs) == (2 if method is DistillMethod.ATTENTION else 1)
    student = keras.models.load_model(outputs.files["keras"].path, compile=False)
    assert all(student.get_layer(layer) for layer, _, _ in pairs)


def test_an_inference_only_checkpoint_teaches_a_family_but_cannot_be_narrowed(home, tmp_path):
    with pytest.raises(CheckpointError, match="trainable form"):
        run(settings(), inputs(home, with_keras=False), context(tmp_path / "a"))
    family = settings(student=Student(family=Family.RESNET8, width=0.5), epochs=2)
    outputs = run(family, inputs(home, with_keras=False), context(tmp_path / "b"))
    assert outputs.facts["score"] > 0.5


def test_a_student_function_is_called_with_the_shapes(home, tmp_path, monkeypatch):
    (tmp_path / "my_students.py").write_text(
        "import tf_keras as keras\n"
        "L = keras.layers\n"
        "def small(shape, outputs):\n"
        "    assert (shape, outputs) == ((8, 8, 1), 10)\n"
        "    return keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(outputs)])\n"
        "def wrong(shape, outputs):\n"
        "    return keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(3)])\n"
        "def broken(shape, outputs):\n"
        "    raise KeyError('no')\n"
        "def text(shape, outputs):\n"
        "    return 'model'\n"
        "class Own(keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        return 2 * x\n"
        "def own(shape, outputs):\n"
        "    return keras.Sequential([keras.Input(shape), Own(), L.Flatten(), L.Dense(outputs)])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_students", raising=False)

    def go(name, folder):
        student = Student(function=f"python:my_students:{name}")
        return run(settings(student=student, epochs=2), inputs(home, with_keras=False), context(tmp_path / folder))

    assert go("small", "a").facts["parameters"] == 650
    refused = {"wrong": "does not fit", "broken": "KeyError", "text": "did not return", "no": "no", "own": "read back"}
    for name, message in refused.items():
        with pytest.raises(RecipeError, match="student") as caught:
            go(name, name)
        assert message in str(caught.value)


def kinds(model):
    """Classes of the layers; a nested sequential model may come back as a functional one."""
    return [
        kinds(layer) if isinstance(layer, keras.Model) else type(layer)
        for layer in model.layers
        if not isinstance(layer, layers.InputLayer)
    ]


def structure(model):
    return [
        (type(layer).__name__, [type(node.layer).__name__ for node in layer._outbound_nodes]) for layer in model.layers
    ]


@pytest.mark.parametrize("width", [0.25, 0.5, 0.75, 1.0])
def test_narrowing_keeps_structure_and_scales_channels(width):
    fresh(0)
    teacher = convnet()
    student = narrow(teacher, width)
    assert structure(student) == structure(teacher)
    for old, new in zip(teacher.layers, student.layers, strict=True):
        assert old.output_shape[:-1] == new.output_shape[:-1] or isinstance(old, layers.InputLayer)
        if isinstance(old, layers.Conv2D) and not isinstance(old, layers.DepthwiseConv2D):
            assert new.filters == narrowed(old.filters, width)
    assert student.output_shape == (None, 10)
    assert student.count_params() <= teacher.count_params()
    assert (student.count_params() == teacher.count_params()) == (width == 1.0)


def test_channel_counts_are_multiples_of_four():
    assert [narrowed(c, 0.5) for c in (1, 3, 4, 6, 12, 20, 24, 100)] == [1, 3, 4, 4, 8, 8, 12, 48]


def squeeze_excite():
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(32, 3, padding="same", activation="swish")(image)
    gate = layers.GlobalAveragePooling2D()(x)
    gate = layers.Reshape((1, 1, 32))(gate)
    gate = layers.Conv2D(8, 1, activation="relu")(gate)
    gate = layers.Conv2D(32, 1, activation="sigmoid")(gate)
    x = layers.Multiply()([x, gate])
    x = layers.Concatenate()([x, layers.Conv2D(16, 1)(x)])
    return keras.Model(image, layers.Dense(4)(layers.Flatten()(x)))


def nested():
    inner = keras.Sequential([layers.Input((8, 8, 16)), layers.Conv2D(32, 3), layers.BatchNormalization()])
    head = keras.Sequential([layers.Input((6, 6, 32)), layers.GlobalMaxPooling2D(), layers.Dense(5)])
    image = keras.Input((8, 8, 1))
    return keras.Model(image, head(inner(layers.Conv2D(16, 3, padding="same")(image))))


def input_residual():
    image = keras.Input((6, 16))
    x = layers.Conv1D(32, 3, padding="same", activation="relu")(image)
    x = layers.Add()([image, layers.Conv1D(16, 3, padding="same")(x)])
    return keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def output_residual():
    flat = keras.Input((20,))
    x = layers.Dense(64, activation="relu")(flat)
    return keras.Model(flat, layers.Add()([layers.Dense(7)(x), layers.Dense(7)(layers.Dense(32)(x))]))


def recurrent():
    sequence = keras.Input((10, 6))
    x = layers.Bidirectional(layers.LSTM(16, return_sequences=True))(sequence)
    return keras.Model(sequence, layers.Dense(3)(layers.GRU(24)(x)))


def autoencoder():
    image = keras.Input((8, 8, 1))
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(image)
    x = layers.Dense(4 * 4 * 16)(layers.Flatten()(x))
    x = layers.Conv2DTranspose(8, 3, strides=2, padding="same")(layers.Reshape((4, 4, 16))(x))
    return keras.Model(image, layers.Conv2D(1, 3, padding="same", activation="sigmoid")(x))


def fully_convolutional():
    image = keras.Input((8, 8, 1))
    x = layers.Conv2D(6, 1)(layers.Conv2D(16, 3, groups=1, activation="relu")(image))
    return keras.Model(image, layers.Softmax()(layers.GlobalAveragePooling2D()(x)))


def grouped():
    image = keras.Input((8, 8, 4))
    x = layers.Conv2D(32, 3, activation="relu")(image)
    x = layers.Conv2D(32, 3, groups=8)(x)
    x = layers.GroupNormalization(16)(layers.Conv2D(64, 3, groups=32)(x))
    return keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


def preprocessed():
    image = keras.Input((8, 8, 1))
    x = layers.Normalization(mean=[3.0], variance=[4.0])(layers.Rescaling(2.0)(image))
    x = layers.MultiHeadAttention(4, 16)(*[layers.Reshape((64, 8))(layers.Conv2D(8, 1)(x))] * 2)
    return keras.Model(image, layers.Dense(2)(layers.Flatten()(x)))


@pytest.mark.parametrize(
    "build_teacher",
    [
        squeeze_excite,
        nested,
        input_residual,
        output_residual,
        recurrent,
        autoencoder,
        fully_convolutional,
        grouped,
        preprocessed,
    ],
)
def test_graphs_of_many_kinds_are_narrowed(build_teacher):
    fresh(0)
    teacher = build_teacher()
    student = narrow(teacher, 0.5)
    x = np.random.default_rng(0).normal(size=(2, *teacher.input_shape[1:])).astype(np.float32)
    assert student(x).shape == teacher(x).shape
    assert student.count_params() < 0.8 * teacher.count_params()
    # what a teacher without normalization gets is tested in test_normalization.py
    norm = layers.BatchNormalization
    assert [kind for kind in kinds(student) if kind is not norm] == [
        kind for kind in kinds(teacher) if kind is not norm
    ]


def test_a_normalization_keeps_its_values():
    fresh(0)
    teacher = keras.Sequential([layers.Input((4,)), layers.Normalization(), layers.Dense(32), layers.Dense(2)])
    teacher.layers[0].adapt(np.random.default_rng(0).normal(5, 3, size=(100, 4)))
    student = narrow(teacher, 0.5)
    normalization = next(layer for layer in student.layers if isinstance(layer, layers.Normalization))
    x = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(normalization(x), teacher.layers[0](x), rtol=1e-5)


def test_what_cannot_be_narrowed_is_named():
    fresh(0)
    image = keras.Input((8, 8, 1))
    x = layers.Conv2D(16, 3, padding="same")(image)
    odd = keras.Model(image, layers.Dense(2)(layers.Flatten()(layers.Reshape((128, 8), name="odd_one")(x))))
    with pytest.raises(CheckpointError, match="cannot be narrowed") as caught:
        narrow(odd, 0.5)
    assert "odd_one" in str(caught.value)

    class Opaque(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, x):
            return self.dense(x)

    opaque = Opaque()
    opaque.build((None, 4))
    opaque(np.zeros((1, 4), np.float32))
    with pytest.raises(CheckpointError, match="cannot be narrowed") as caught:
        narrow(opaque, 0.5)
    assert "Opaque" in str(caught.value)
    with pytest.raises(CheckpointError, match="no hidden layer"):
        narrow(keras.Sequential([layers.Input((4,)), layers.Dense(3)]), 0.5)

    fixed = keras.Input((8, 8, 1))
    rows = tf.reshape(layers.Conv2D(16, 3, padding="same")(fixed), [-1, 8 * 8 * 16])
    with pytest.raises(CheckpointError, match=r"cannot be narrowed") as caught:
        narrow(keras.Model(fixed, layers.Dense(2)(rows)), 0.5)
    assert "tf.reshape" in str(caught.value)


@pytest.mark.parametrize("family", [Family.RESNET8, Family.DS_CNN, Family.MOBILENET_V1])
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28), (3, 32, 32), (49, 10, 1)])
def test_families_fit_any_image(family, shape):
    fresh(0)
    model = build(family, shape, (10,), 0.5, "softmax")
    answer = np.asarray(model(np.zeros((2, *shape), np.float32)))
    assert answer.shape == (2, 10)
    np.testing.assert_allclose(answer.sum(axis=1), 1, rtol=1e-5)
    assert model.count_params() < build(family, shape, (10,), 1.0, "softmax").count_params()


def test_families_have_the_sizes_of_mlperf_tiny():
    """Trainable parameters, as published for the reference models: 78 666, 24 908 and about 267 k."""
    fresh(0)
    sizes = {
        Family.RESNET8: build(Family.RESNET8, (32, 32, 3), (10,), 1.0, "softmax"),
        Family.DS_CNN: build(Family.DS_CNN, (49, 10, 1), (12,), 1.0, "softmax"),
        Family.MLP_AUTOENCODER: build(Family.MLP_AUTOENCODER, (640,), (640,), 1.0, "linear"),
    }
    for family, published in ((Family.RESNET8, 78_666), (Family.DS_CNN, 24_908), (Family.MLP_AUTOENCODER, 267_928)):
        assert sizes[family].count_params() == pytest.approx(published, rel=0.05)


def test_the_autoencoder_rebuilds_the_shape_and_images_are_needed_elsewhere():
    fresh(0)
    model = build(Family.MLP_AUTOENCODER, (8, 8, 1), (8, 8, 1), 0.5, "linear")
    assert model.output_shape == (None, 8, 8, 1)
    with pytest.raises(RecipeError, match="resnet8"):
        build(Family.RESNET8, (64,), (10,), 1.0, "linear")
