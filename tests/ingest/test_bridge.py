"""The Keras 3 bridge: every standard layer, rebuilt in Keras 2, gives the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemill.data import Dataset, SplitName, write_dataset
from edgemill.ingest.bridge import bridge, compare
from edgemill.ingest.compare import difference, probe
from edgemill.ingest.export import keras_to_onnx, save_keras
from edgemill.ingest.graph import OnnxFunction
from edgemill.ingest.keras3 import keras3
from edgemill.recipe import Preprocess
from edgemill.tf import fresh, keras

L = keras3.layers
O = keras3.ops  # noqa: E741  (as short as L)
TOLERANCE = 1e-5
IMAGE = (12, 12, 4)
SERIES = (16, 4)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    fresh(0)
    keras3.utils.clear_session()
    keras3.utils.set_random_seed(3)


def sequential(shape: tuple[int | None, ...], *layers: Any) -> Any:
    return keras3.Sequential([keras3.Input(shape), *layers])


def functional(shape: tuple[int | None, ...], call: Callable[[Any], Any]) -> Any:
    x = keras3.Input(shape)
    return keras3.Model(x, call(x))


def stir(model: Any) -> Any:
    """Weights as training leaves them: nothing zero, nothing one."""
    rng = np.random.default_rng(5)
    for weight in model.weights:
        noise = rng.uniform(0.5, 1.5, weight.shape) if "variance" in weight.path else rng.normal(0, 0.3, weight.shape)
        weight.assign(noise if "variance" in weight.path else np.asarray(weight) + noise)
    return model


def prove(model: Any, vocabulary: int | None = None) -> Any:
    """Bridge a model and compare it layer by layer and as a whole."""
    stir(model)
    made = bridge(model)
    assert made.unbridged == []
    x = probe(tuple(model.inputs[0].shape[1:]), 1, vocabulary)
    assert compare(model, made, x, TOLERANCE) == []
    answer = np.asarray(model(x, training=False))
    assert np.ptp(answer) > 0, "a constant answer proves nothing"
    assert difference(answer, made.model(x, training=False).numpy()).relative < TOLERANCE
    return made.model


def same_image(layer: Callable[..., Any], **settings: Any) -> Any:
    return pytest.param(
        lambda: sequential(IMAGE, layer(**settings)),
        id=f"{layer.__name__}-{'-'.join(str(v) for v in settings.values())}",
    )


def same_series(layer: Callable[..., Any], **settings: Any) -> Any:
    return pytest.param(
        lambda: sequential(SERIES, layer(**settings)),
        id=f"{layer.__name__}-{'-'.join(str(v) for v in settings.values())}",
    )


ACTIVATIONS = [
    "relu", "relu6", "leaky_relu", "elu", "selu", "silu", "swish", "hard_silu", "hard_swish", "hard_sigmoid", "sigmoid",
    "tanh", "softmax", "softplus", "softsign", "gelu", "mish", "exponential", "linear", "log_softmax",
]  # fmt: skip


@pytest.mark.parametrize(
    "build",
    [
        same_image(L.Conv2D, filters=5, kernel_size=3, strides=2, padding="same"),
        same_image(L.Conv2D, filters=4, kernel_size=3, dilation_rate=2, use_bias=False),
        same_image(L.Conv2D, filters=6, kernel_size=(1, 3), groups=2),
        same_image(L.Conv2DTranspose, filters=5, kernel_size=3, strides=2, padding="same"),
        same_image(L.Conv2DTranspose, filters=5, kernel_size=2, strides=2, padding="valid"),
        same_image(L.DepthwiseConv2D, kernel_size=3, strides=2, padding="same", depth_multiplier=2),
        same_image(L.SeparableConv2D, filters=7, kernel_size=3, depth_multiplier=2),
        same_series(L.Conv1D, filters=5, kernel_size=3, padding="causal", dilation_rate=2),
        same_series(L.Conv1D, filters=5, kernel_size=3, strides=2, padding="same"),
        same_series(L.Conv1DTranspose, filters=3, kernel_size=3, strides=2),
        same_series(L.DepthwiseConv1D, kernel_size=3),
        same_series(L.SeparableConv1D, filters=5, kernel_size=3),
        same_image(L.Dense, units=6),
        same_image(L.BatchNormalization),
        same_image(L.BatchNormalization, scale=False, epsilon=1e-2),
        same_series(L.LayerNormalization),
        same_image(L.LayerNormalization, axis=(2, 3), epsilon=1e-2),
        same_image(L.GroupNormalization, groups=2),
        same_image(L.MaxPooling2D, pool_size=3, strides=2, padding="same"),
        same_image(L.AveragePooling2D, pool_size=2, padding="same"),
        same_series(L.MaxPooling1D, pool_size=2),
        same_series(L.AveragePooling1D, pool_size=2),
        same_image(L.GlobalAveragePooling2D, keepdims=True),
        same_image(L.GlobalMaxPooling2D),
        same_series(L.GlobalAveragePooling1D),
        same_series(L.GlobalMaxPooling1D),
        same_image(L.ZeroPadding2D, padding=((1, 2), (0, 1))),
        same_image(L.Cropping2D, cropping=((1, 0), (2, 1))),
        same_series(L.ZeroPadding1D, padding=2),
        same_series(L.Cropping1D, cropping=2),
        same_image(L.UpSampling2D, size=2, interpolation="nearest"),
        same_image(L.UpSampling2D, size=2, interpolation="bilinear"),
        same_series(L.UpSampling1D, size=2),
        same_image(L.ReLU, max_value=6.0),
        same_image(L.ReLU, negative_slope=0.1, threshold=0.5),
        same_image(L.LeakyReLU, negative_slope=0.07),
        same_image(L.ELU, alpha=0.5),
        same_image(L.PReLU, shared_axes=[1, 2]),
        same_image(L.Softmax, axis=1),
        same_image(L.Reshape, target_shape=(-1, 8)),
        same_image(L.Permute, dims=(3, 1, 2)),
        same_image(L.Flatten),
        same_image(L.Rescaling, scale=1 / 127.5, offset=-1.0),
        same_image(L.Rescaling, scale=[1.0, 2.0, 3.0, 4.0]),
        same_image(L.Normalization, mean=[0.1, 0.2, 0.3, 0.4], variance=[1.0, 2.0, 3.0, 4.0]),
        same_image(L.Normalization, axis=None, mean=0.5, variance=4.0),
        same_image(L.Resizing, height=7, width=9),
        same_image(L.Identity),
        same_series(L.LSTM, units=5),
        same_series(L.LSTM, units=5, return_sequences=True, go_backwards=True, use_bias=False),
        same_series(L.GRU, units=5),
        same_series(L.GRU, units=5, reset_after=False, return_sequences=True),
        same_series(L.SimpleRNN, units=5),
    ],
)
def test_layer(build: Callable[[], Any]) -> None:
    prove(build())


@pytest.mark.parametrize("layer", ["Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout"])
def test_layer_that_only_acts_in_training(layer: str) -> None:
    twin = prove(sequential(IMAGE, L.Conv2D(3, 1), getattr(L, layer)(0.4)))
    assert type(twin.layers[-1]).__name__ == layer


def test_augmentation_is_left_out() -> None:
    twin = prove(sequential(IMAGE, L.RandomFlip(), L.RandomRotation(0.1), L.Conv2D(3, 3)))
    assert [type(layer).__name__ for layer in twin.layers] == ["InputLayer", "Conv2D"]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_inside_and_on_its_own(name: str) -> None:
    prove(sequential((20,), L.Dense(16, activation=name), L.Activation(name)))


def test_layer_as_an_activation() -> None:
    prove(sequential((8,), L.Dense(4, activation=L.LeakyReLU(negative_slope=0.4))))


@pytest.mark.parametrize("merge", [L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum, L.Concatenate])
def test_merging(merge: Any) -> None:
    prove(functional(IMAGE, lambda x: merge()([L.Conv2D(4, 1)(x), x])))


def test_squeeze_and_excite_broadcasts() -> None:
    def call(x: Any) -> Any:
        gate = L.Dense(4, activation="hard_sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x))
        return L.Multiply()([x, gate])

    prove(functional(IMAGE, call))


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x * 2.0 + 1.0,
        lambda x: 3.0 - x / 4.0,
        lambda x: -x,
        lambda x: x + L.Conv2D(4, 1)(x),
        lambda x: x * O.sigmoid(x),
        lambda x: O.maximum(x, L.Conv2D(4, 1)(x)) - x,
        lambda x: O.relu(x) + O.relu6(x),
        O.hard_silu,
        lambda x: O.leaky_relu(x, 0.3),
        lambda x: O.softmax(x, axis=-1),
        lambda x: O.gelu(x, approximate=False),
        lambda x: O.concatenate([x, O.tanh(x)], axis=-1),
        lambda x: O.mean(x, axis=(1, 2)),
        lambda x: O.max(x, axis=(1, 2), keepdims=True),
        lambda x: O.reshape(x, (-1, 144, 4)),
        lambda x: O.transpose(x, (0, 3, 1, 2)),
        lambda x: O.squeeze(O.expand_dims(x, 1), 1),
    ],
)
def test_operation(call: Callable[[Any], Any]) -> None:
    prove(functional(IMAGE, lambda x: call(L.Conv2D(4, 3, padding="same")(x))))


def test_operation_that_mixes_samples_cannot_be_bridged() -> None:
    made = bridge(functional(IMAGE, lambda x: O.reshape(x, (-1, 48))))
    assert [item.reason for item in made.unbridged] == ["reshapes the batch axis"]


@pytest.mark.parametrize("mode", ["concat", "sum", "ave"])
def test_bidirectional(mode: str) -> None:
    prove(
        sequential(
            SERIES, L.Bidirectional(L.LSTM(5, return_sequences=True), merge_mode=mode), L.Bidirectional(L.GRU(3))
        )
    )


def test_time_distributed() -> None:
    prove(sequential(SERIES, L.TimeDistributed(L.Dense(3, activation="relu")), L.LSTM(4)))


def test_embedding_with_integer_input() -> None:
    x = keras3.Input((10,), dtype="int32")
    model = keras3.Model(x, L.Dense(3)(L.GlobalAveragePooling1D()(L.Embedding(30, 6)(x))))
    prove(model, vocabulary=30)


def test_multi_head_attention() -> None:
    prove(functional(SERIES, lambda x: L.LayerNormalization()(x + L.MultiHeadAttention(2, 3)(x, x))))


def test_shared_layer_stays_shared() -> None:
    def call(x: Any) -> Any:
        dense = L.Dense(8, activation="relu")
        return L.Concatenate()([dense(x), dense(dense(x))])

    twin = prove(functional((8,), call))
    assert len(twin.weights) == 2


def test_nested_models_are_flattened_and_keep_their_sharing() -> None:
    inner = functional((8,), L.Dense(8, name="d", activation="relu"))
    middle = keras3.Sequential([keras3.Input((8,)), inner, L.Dense(8, name="d")])

    def call(x: Any) -> Any:
        return L.Dense(3, name="d")(L.Add()([middle(x), inner(x)]))

    twin = prove(functional((8,), call))
    assert not any(isinstance(layer, keras.Model) for layer in twin.layers)
    assert len({layer.name for layer in twin.layers}) == len(twin.layers)
    assert len(twin.weights) == 6


def test_trainable_flags_are_kept() -> None:
    model = sequential((8,), L.Dense(4, name="frozen"), L.Dense(2, name="free"))
    model.get_layer("frozen").trainable = False
    twin = prove(model)
    assert [twin.get_layer(name).trainable for name in ("frozen", "free")] == [False, True]


def test_adapted_normalization() -> None:
    layer = L.Normalization()
    layer.adapt(np.random.default_rng(0).normal(3, 2, (50, *IMAGE)).astype(np.float32))
    prove_adapted = sequential(IMAGE, layer, L.Conv2D(3, 3))
    made = bridge(prove_adapted)
    x = probe(IMAGE, 1, None)
    assert difference(np.asarray(prove_adapted(x)), made.model(x).numpy()).relative < TOLERANCE


def test_free_image_size() -> None:
    prove(sequential((None, None, 3), L.Conv2D(4, 3), L.GlobalAveragePooling2D(), L.Dense(2)))


def test_twin_trains() -> None:
    twin = prove(sequential(IMAGE, L.Conv2D(4, 3, activation="relu6"), L.BatchNormalization(), L.Flatten(), L.Dense(3)))
    x, y = probe(IMAGE, 2, None), np.arange(16) % 3
    twin.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    losses = twin.fit(x, y, epochs=12, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]


def test_what_cannot_be_bridged_is_named_layer_by_layer() -> None:
    def call(x: Any) -> Any:
        x = L.AdaptiveAveragePooling2D(2, name="adaptive")(x)
        x = L.Dense(4, activation="relu")(O.sin(x))
        return L.Dense(3, activation="squareplus", name="last")(L.Flatten()(x))

    made = bridge(functional(IMAGE, call))
    assert made.model is None
    assert [(item.layer, item.kind) for item in made.unbridged] == [
        ("adaptive", "AdaptiveAveragePooling2D"),
        ("sin", "Sin"),
        ("last", "Dense"),
    ]
    assert "squareplus" in made.unbridged[-1].reason


def test_subclassed_model_cannot_be_bridged() -> None:
    class Mine(keras3.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = L.Dense(3)

        def call(self, x: Any) -> Any:
            return self.dense(x)

    model = Mine()
    model(np.zeros((1, 4), np.float32))
    made = bridge(model)
    assert made.model is None
    assert "Python code" in made.unbridged[0].reason


def test_a_wrong_twin_is_found_and_named() -> None:
    model = stir(sequential(IMAGE, L.Conv2D(4, 3, name="first"), L.Conv2D(4, 3, name="second"), L.ReLU(name="third")))
    made = bridge(model)
    kernel = made.model.get_layer("second").weights[0]
    kernel.assign(kernel * 1.01)
    found = compare(model, made, probe(IMAGE, 1, None), 1e-4)
    assert [item.layer for item in found] == ["second"]


def everyday_cnn() -> Any:
    def call(x: Any) -> Any:
        x = L.Conv2D(8, 3, padding="same", use_bias=False)(L.Rescaling(1 / 255.0)(x))
        x = y = L.ReLU(max_value=6.0)(L.BatchNormalization()(x))
        y = L.SeparableConv2D(8, 3, padding="same", activation="hard_swish")(y)
        x = L.Dropout(0.3)(L.MaxPooling2D()(L.Add()([x, y])))
        return L.Dense(5, activation="softmax")(L.GlobalAveragePooling2D()(x))

    return stir(functional(IMAGE, call))


def test_file_and_onnx_of_the_twin_answer_the_same(tmp_path: Path) -> None:
    model = everyday_cnn()
    twin = bridge(model).model
    x = probe(IMAGE, 1, None)
    expected = np.asarray(model(x, training=False))
    save_keras(twin, tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras", compile=False)
    assert difference(expected, again(x).numpy()).relative < TOLERANCE
    keras_to_onnx(again, tmp_path / "m.onnx")
    assert difference(expected, OnnxFunction(tmp_path / "m.onnx")(x)).relative < TOLERANCE


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_ingest_keras3_file(tmp_path: Path, ingest: Any, suffix: str) -> None:
    everyday_cnn().save(tmp_path / f"m{suffix}")
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    images = {split: rng.integers(0, 255, (20, *IMAGE), np.uint8) for split in SplitName}
    labels = {split: rng.integers(0, 5, 20) for split in SplitName}
    write_dataset(tmp_path / "data", images, labels, Preprocess())
    outputs = ingest(tmp_path / f"m{suffix}", tmp_path / "data")
    facts = outputs.facts
    assert facts["format"] == f"keras3-{'zip' if suffix == '.keras' else 'h5'}"
    assert facts["trainable"] is True
    assert facts["unbridged"] == []
    assert facts["compared_on"] == ["random", "real"]
    assert facts["relative_difference"] < 1e-4
    assert facts["ends_in_softmax"] is True
    assert set(outputs.files) == {"onnx", "keras"}
    x = Dataset(tmp_path / "data").features(SplitName.TEST)
    twin = keras.models.load_model(outputs.files["keras"].path, compile=False)
    assert difference(OnnxFunction(outputs.files["onnx"].path)(x), twin(x).numpy()).relative < TOLERANCE


def test_ingest_of_an_unbridgeable_model_goes_on_for_inference(tmp_path: Path, ingest: Any) -> None:
    model = functional(IMAGE, lambda x: L.Dense(3)(L.Flatten()(O.sin(L.Conv2D(4, 3, name="conv")(x)))))
    model.save(tmp_path / "m.keras")
    outputs = ingest(tmp_path / "m.keras")
    assert outputs.facts["trainable"] is False
    assert [item["layer"] for item in outputs.facts["unbridged"]] == ["sin"]
    assert set(outputs.files) == {"onnx", "saved_model"}
    x = probe(IMAGE, 1, None)
    expected = np.asarray(model(x))
    assert difference(expected, OnnxFunction(outputs.files["onnx"].path)(x)).relative < TOLERANCE
    converter = __import__("tensorflow").lite.TFLiteConverter.from_saved_model(str(outputs.files["saved_model"].path))
    assert converter.convert()[4:8] == b"TFL3"


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16"])
def test_other_precisions_are_read_in_float32(tmp_path: Path, ingest: Any, policy: str) -> None:
    keras3.config.set_dtype_policy(policy)
    try:
        sequential(IMAGE, L.Conv2D(4, 3), L.Flatten(), L.Dense(3)).save(tmp_path / "m.keras")
    finally:
        keras3.config.set_dtype_policy("float32")
    facts = ingest(tmp_path / "m.keras").facts
    assert facts["replaced_precision"] == [policy]
    assert facts["trainable"] is True
    assert facts["relative_difference"] < 1e-4
