"""ONNX graphs become Keras 2 models that answer alike, can be trained, and move no more data than they must."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgemill.data import SplitName, write_dataset
from edgemill.errors import ToolchainError
from edgemill.ingest.compare import difference, probe
from edgemill.ingest.export import keras_to_onnx
from edgemill.ingest.graph import OPSET, OnnxFunction
from edgemill.ingest.onnx_bridge import OnnxBridge, bridge_onnx, differing
from edgemill.recipe import Preprocess
from edgemill.step import Outputs
from edgemill.tf import fresh, keras, tf

Ingest = Callable[..., Outputs]
L = keras.layers
RNG = np.random.default_rng(0)


class Build:
    """An ONNX graph, node by node; every call returns the name of what the node answers."""

    def __init__(self, *shape: int | str) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.source = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])

    def __call__(self, kind: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> str:
        number = len(self.nodes)
        names = [f"t{number}"] + [f"t{number}_{i}" for i in range(1, outputs)]
        given = [item if isinstance(item, str) else self.constant(item) for item in inputs]
        self.nodes.append(helper.make_node(kind, given, names, name=f"{kind.lower()}_{number}", **attributes))
        return names[0]

    def constant(self, value: Any) -> str:
        array = np.asarray(value)
        array = array.astype(np.float32 if array.dtype.kind == "f" else array.dtype)
        self.weights.append(numpy_helper.from_array(array, f"w{len(self.weights)}"))
        return f"w{len(self.weights) - 1}"

    def conv(self, x: str, into: int, out: int, size: int = 3, **attributes: Any) -> str:
        group = attributes.get("group", 1)
        kernel = RNG.normal(size=(out, into // group, size, size)) / size
        return self("Conv", x, kernel, RNG.normal(size=out), **attributes)

    def dense(self, x: str, into: int, out: int) -> str:
        return self("Gemm", x, RNG.normal(size=(out, into)) / into**0.5, RNG.normal(size=out), transB=1)

    def model(self, *names: str) -> onnx.ModelProto:
        outputs = [helper.make_empty_tensor_value_info(name) for name in names]
        graph = helper.make_graph(self.nodes, "g", [self.source], outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        return onnx.shape_inference.infer_shapes(model)


def residual() -> onnx.ModelProto:
    b = Build(3, 9, 9)
    y = b("Relu", b.conv("x", 3, 6, pads=[1] * 4))
    z = b("BatchNormalization", b.conv(y, 6, 6, pads=[1] * 4), *(RNG.uniform(0.5, 1.5, 6) for _ in range(4)))
    y = b("Relu", b("Add", z, y))
    y = b("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    y = b("Concat", y, b("AveragePool", y, kernel_shape=[3, 3], pads=[1] * 4), axis=1)
    return b.model(b("Softmax", b.dense(b("Flatten", b("GlobalAveragePool", y)), 12, 4), axis=1))


def flattened() -> onnx.ModelProto:
    """PyTorch's x.view(x.size(0), -1) behind a convolution."""
    b = Build(2, 7, 5)
    y = b("LeakyRelu", b.conv("x", 2, 4, strides=[2, 1], pads=[1, 1, 1, 1]), alpha=0.1)
    batch = b("Unsqueeze", b("Gather", b("Shape", y), np.int64(0), axis=0), np.array([0]))
    y = b("Tanh", b("Reshape", y, b("Concat", batch, np.array([-1]), axis=0)))
    y = b("Add", b("MatMul", y, RNG.normal(size=(80, 6)) / 9), RNG.normal(size=6))
    return b.model(b.dense(b("Elu", y), 6, 3))


def mobile() -> onnx.ModelProto:
    """Depthwise convolutions, ReLU6, squeeze-and-excitation, hard swish."""
    b = Build(4, 8, 8)
    y = b("Clip", b("Conv", "x", RNG.normal(size=(8, 1, 3, 3)), group=4, strides=[2, 2], pads=[1] * 4), 0.0, 6.0)
    s = b("Relu", b.conv(b("ReduceMean", y, axes=[2, 3], keepdims=1), 8, 4, 1))
    s = b("HardSigmoid", b.conv(s, 4, 8, 1), alpha=1 / 6, beta=0.5)
    y = b("HardSwish", b.conv(b("Mul", y, s), 8, 6, 1))
    y = b("PRelu", b.conv(y, 6, 6, group=6, dilations=[2, 2], pads=[2] * 4), RNG.uniform(size=(6, 1, 1)))
    y = b("Clip", b.conv(y, 6, 6, group=2), -0.5, 0.7)
    return b.model(b.dense(b("Squeeze", b("ReduceMax", y, axes=[3, 2]), np.array([2, 3])), 6, 5))


def preprocessed() -> onnx.ModelProto:
    """Per-channel constants: at the input, behind a convolution, and where no layer can take them."""
    b = Build(3, 6, 6)
    y = b("Div", b("Sub", "x", RNG.normal(size=(1, 3, 1, 1))), RNG.uniform(1, 2, (3, 1, 1)))
    y = b("Mul", b("Add", b.conv(y, 3, 4), RNG.normal(size=(4, 1, 1))), RNG.normal(size=(1, 4, 1, 1)))
    y = b("Sub", 1.5, b("Mul", b("Sigmoid", y), RNG.normal(size=(1, 4, 1, 1))))
    return b.model(b("Neg", b("Min", b("Max", y, 0.0), 1.25)))


def autoencoder() -> onnx.ModelProto:
    b = Build(2, 8, 8)
    y = b("Relu", b.conv("x", 2, 4, strides=[2, 2], pads=[1] * 4))
    y = b("Reshape", b.dense(b("Flatten", y), 64, 64), np.array([-1, 4, 4, 4]))
    y = b("Relu", b("ConvTranspose", y, RNG.normal(size=(4, 3, 3, 3)), RNG.normal(size=3), strides=[2, 2],
                    pads=[1] * 4, output_padding=[1, 1]))  # fmt: skip
    y = b("Resize", b("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]), "", np.array([1.0, 1.0, 2.0, 2.0]),
          mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")  # fmt: skip
    y = b("Pad", y, np.array([0, 0, 1, 0, 0, 0, 1, 2]))
    y = b("Slice", y, np.array([1, 0]), np.array([-1, 8]), np.array([2, 3]))
    return b.model(b("ConvTranspose", y, RNG.normal(size=(3, 2, 2, 2)), strides=[2, 2]), y)


def series() -> onnx.ModelProto:
    """One spatial axis, a channel that is not the last, GELU written out, LayerNormalization."""
    b = Build(3, 12)
    y = b("Conv", "x", RNG.normal(size=(6, 3, 4)), RNG.normal(size=6), strides=[2], pads=[1, 2])
    half = b("Mul", y, 0.5)
    y = b("Mul", half, b("Add", b("Erf", b("Div", y, np.sqrt(2.0))), 1.0))
    y = b("Transpose", y, perm=[0, 2, 1])
    y = b("LayerNormalization", y, RNG.normal(size=6), RNG.normal(size=6), axis=-1, epsilon=1e-3)
    y = b("Add", b("MatMul", y, RNG.normal(size=(6, 6))), y)
    y = b("Dropout", b("Identity", b("Transpose", y, perm=[0, 2, 1])))
    y = b("Concat", b("AveragePool", y, kernel_shape=[2]), b("MaxPool", y, kernel_shape=[2]), axis=1)
    return b.model(b("Flatten", b("GlobalMaxPool", y)))


ZOO = [residual, flattened, mobile, preprocessed, autoencoder, series]


def save(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


def kinds(model: Any) -> list[str]:
    return [type(layer).__name__ for layer in model.layers]


def inputs_for(made: OnnxBridge) -> Any:
    return probe(tuple(made.model.input_shape[1:]), 5, None)


@pytest.mark.parametrize("make", ZOO)
def test_graph_answers_alike(make: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    fresh(0)
    model = make()
    made = bridge_onnx(model)
    assert made.unbridged == []
    assert differing(made, save(model, tmp_path), [inputs_for(made)], 1e-5) == []
    assert not {"TFOpLambda", "Lambda", "SlicingOpLambda"} & set(kinds(made.model))
    shape = [dim.dim_value or None for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert list(made.model.input_shape) == shape
    made.model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras", compile=False)
    x = inputs_for(made)
    for mine, theirs in zip(tf.nest.flatten(made.model(x)), tf.nest.flatten(again(x)), strict=True):
        assert np.array_equal(mine, theirs)


@st.composite
def windows(draw: st.DrawFn) -> onnx.ModelProto:
    """One convolution or pooling with any attributes, possibly invalid."""
    rank = draw(st.sampled_from([1, 2, 2]))
    numbers = lambda low, high, count=rank: draw(st.lists(st.integers(low, high), min_size=count, max_size=count))  # noqa: E731
    sizes, kernel, strides = numbers(4, 9), numbers(1, 4), numbers(1, 3)
    kind = draw(st.sampled_from(["Conv", "ConvTranspose", "MaxPool", "AveragePool"]))
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides}
    auto = draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if auto == "NOTSET":
        attributes["pads"] = [min(p, k - 1) for p, k in zip(numbers(0, 2, 2 * rank), kernel * 2, strict=True)]
    else:
        attributes["auto_pad"] = auto
    b, group = Build(4, *sizes), draw(st.sampled_from([1, 2, 4]))
    x = draw(st.sampled_from(["x", b("Relu", "x")]))
    if kind.startswith("Conv"):
        attributes["group"] = group
        shape = (4, 8 // group) if kind == "ConvTranspose" else (8, 4 // group)
        if kind == "Conv":
            attributes["dilations"] = numbers(1, 2)
        elif draw(st.booleans()):
            attributes["output_padding"] = [draw(st.integers(0, s - 1)) for s in strides]
        return b.model(b(kind, x, RNG.normal(size=(*shape, *kernel)), RNG.normal(size=8), **attributes))
    attributes["ceil_mode"] = draw(st.integers(0, 1))
    if kind == "AveragePool":
        attributes["count_include_pad"] = draw(st.integers(0, 1))
    return b.model(b(kind, x, **attributes))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(windows())
def test_any_window_answers_alike_or_is_named(model: onnx.ModelProto) -> None:
    """Keras and ONNX pad in different ways: what cannot be had must be refused, not be found wrong later."""
    keras.backend.clear_session()
    made = bridge_onnx(model)
    with tempfile.TemporaryDirectory() as folder:
        path = save(model, Path(folder))
        try:
            OnnxFunction(path)(np.zeros((1, *(d.dim_value for d in inner(model))), np.float32))
        except ToolchainError:  # onnxruntime refuses it
            return
        assert made.unbridged or differing(made, path, [inputs_for(made)], 1e-5) == []
    event("bridged" if made.model is not None else made.unbridged[0].reason)


def inner(model: onnx.ModelProto) -> list[Any]:
    return list(model.graph.input[0].type.tensor_type.shape.dim)[1:]


@pytest.mark.parametrize(
    ("make", "moved"),
    [(residual, ["Permute"]), (flattened, ["Permute", "Flatten"]), (mobile, ["Permute", "Reshape"]),
     (preprocessed, ["Permute", "Permute"]), (series, ["Permute"])],
)  # fmt: skip
def test_data_are_moved_where_they_must_be_only(make: Callable[[], onnx.ModelProto], moved: list[str]) -> None:
    fresh(0)
    found = [kind for kind in kinds(bridge_onnx(make()).model) if kind in ("Permute", "Reshape", "Flatten")]
    assert found == moved


def test_input_with_one_channel_is_not_permuted() -> None:
    fresh(0)
    b = Build(1, 6, 6)
    made = bridge_onnx(b.model(b("Relu", b.conv("x", 1, 4))))
    assert kinds(made.model) == ["InputLayer", "Reshape", "Conv2D", "ReLU", "Permute"]


def test_bias_and_scale_go_into_the_layer() -> None:
    fresh(0)
    made = bridge_onnx(preprocessed())
    assert kinds(made.model).count("Conv2D") == 1
    # mean and deviation are one layer, and the constant behind a nonlinearity can still be learnt
    assert kinds(made.model)[:4] == ["InputLayer", "Rescaling", "Permute", "Conv2D"]
    assert "DepthwiseConv2D" in kinds(made.model)
    fresh(0)
    assert kinds(bridge_onnx(flattened()).model)[-3:] == ["Dense", "ELU", "Dense"]
    assert "gelu" in [layer.get_config().get("activation") for layer in bridge_onnx(series()).model.layers]


def test_gelu_in_all_its_spellings(tmp_path: Path) -> None:
    root = np.sqrt(2.0)
    for spelling in (
        lambda b, u: b("Mul", b("Mul", u, b("Add", b("Erf", b("Div", u, root)), 1.0)), 0.5),
        lambda b, u: b("Mul", b("Mul", 0.5, u), b("Add", 1.0, b("Erf", b("Mul", u, 1 / root)))),
        lambda b, u: b("Mul", u, b("Mul", b("Add", b("Erf", b("Div", u, root)), 1.0), 0.5)),
        lambda b, u: b("Mul", b("Mul", u, 0.5), b("Sub", 1.0, b("Erf", b("Mul", b("Neg", u), 1 / root)))),
    ):
        fresh(0)
        b = Build(5)
        model = b.model(spelling(b, b.dense("x", 5, 4)))
        made = bridge_onnx(model)
        assert kinds(made.model) == ["InputLayer", "Dense", "Activation"]
        assert differing(made, save(model, tmp_path), [inputs_for(made)], 1e-5) == []
    fresh(0)
    b = Build(5)
    other = b("Mul", "x", b("Add", b("Erf", b("Div", "x", 2.0)), 1.0))
    assert [item.kind for item in bridge_onnx(b.model(other)).unbridged] == ["Erf"]


def test_what_cannot_be_bridged_is_named() -> None:
    fresh(0)
    b = Build(4, 6, 6)
    y = b("Sin", b.conv("x", 4, 4))
    y = b("Conv", y, b.conv("x", 4, 4))
    y = b("Pad", y, np.array([0, 0, 1, 1, 0, 0, 1, 1]), mode="reflect")
    z = b("DepthToSpace", b.conv("x", 4, 4), blocksize=2)
    made = bridge_onnx(b.model(b("Cos", y), b("Resize", b.conv("x", 4, 4), "", np.ones(4) * [1, 1, 1.5, 1.5]), z))
    assert made.model is None
    # what only stands behind a failed operator is not blamed
    assert [(item.layer, item.kind) for item in made.unbridged] == [
        ("sin_1", "Sin"),
        ("depthtospace_6", "DepthToSpace"),
        ("cos_7", "Cos"),
        ("resize_9", "Resize"),
    ]
    assert "1.5" in made.unbridged[-1].reason
    for build, reason in ((reflected, "pads by reflect"), (merged_batch, "batch axis"), (batch_size, "batch size")):
        fresh(0)
        assert reason in bridge_onnx(build()).unbridged[0].reason


def reflected() -> onnx.ModelProto:
    b = Build(2, 6, 6)
    return b.model(b("Pad", "x", np.array([0, 0, 1, 1, 0, 0, 1, 1]), mode="reflect"))


def merged_batch() -> onnx.ModelProto:
    b = Build(2, 6)
    return b.model(b("Reshape", "x", np.array([-1, 6])))


def batch_size() -> onnx.ModelProto:
    b = Build(2)
    size = b("Cast", b("Gather", b("Shape", "x"), np.int64(0)), to=TensorProto.FLOAT)
    return b.model(b("Mul", "x", size))


def test_a_wrong_rebuild_is_found_and_the_operator_named(tmp_path: Path) -> None:
    fresh(0)
    model = residual()
    made = bridge_onnx(model)
    layer = next(item for item in made.model.layers if type(item).__name__ == "BatchNormalization")
    layer.gamma.assign(layer.gamma * 1.01)
    found = differing(made, save(model, tmp_path), [inputs_for(made)], 1e-4)
    assert [item.kind for item in found] == ["BatchNormalization"]
    assert "differs by" in found[0].reason


def keras_models() -> dict[str, Any]:
    """Small Keras models, written by tf2onnx."""
    x = keras.Input((10, 12, 3))
    y = L.BatchNormalization()(L.Conv2D(8, 3, strides=2, padding="same")(L.Rescaling(1 / 255.0, -0.5)(x)))
    y = L.ReLU(6.0)(L.DepthwiseConv2D(3, padding="same")(L.ZeroPadding2D(((0, 1), (1, 0)))(y)))
    y = L.Concatenate()([L.MaxPooling2D(3, 2, "same")(y), L.AveragePooling2D(3, 2, "same")(y)])
    gate = L.Conv2D(16, 1, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(y))
    y = L.Activation("swish")(L.Multiply()([y, gate]))
    cnn = keras.Model(x, L.Dense(5, activation="softmax")(L.Flatten()(L.SeparableConv2D(6, 3)(y))))
    x = keras.Input((16, 4))
    y = L.Conv1D(8, 3, padding="same", activation="elu")(x)
    y = L.MaxPooling1D(2)(L.LeakyReLU(0.1)(L.Conv1D(8, 5, dilation_rate=2)(y)))
    y = L.DepthwiseConv1D(3, activation="softsign")(y)
    conv1d = keras.Model(x, L.Dense(3)(L.GlobalMaxPooling1D()(y)))
    x = keras.Input((7, 7, 2))
    y = L.Dense(49, activation="elu")(L.Flatten()(L.Conv2D(3, 3)(x)))
    y = L.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu")(L.Reshape((7, 7, 1))(y))
    y = L.Conv2DTranspose(4, 4, strides=2)(L.UpSampling2D(2)(y))
    decoder = keras.Model(x, L.Cropping2D(((1, 2), (0, 3)))(y))
    mlp = keras.Sequential([keras.Input((20,)), L.Dense(9, "relu"), L.BatchNormalization(), L.Dense(20, "tanh")])
    return {"cnn": cnn, "conv1d": conv1d, "decoder": decoder, "mlp": mlp}


@pytest.mark.parametrize("name", ["cnn", "conv1d", "decoder", "mlp"])
def test_there_and_back(name: str, tmp_path: Path) -> None:
    fresh(0)
    model = keras_models()[name]
    model.set_weights([RNG.uniform(-0.4, 0.6, w.shape) + (w.ndim == 1) for w in model.get_weights()])
    path = tmp_path / "m.onnx"
    keras_to_onnx(model, path)
    made = bridge_onnx(onnx.load(path))
    assert made.unbridged == []
    x = inputs_for(made)
    assert differing(made, path, [x], 1e-5) == []
    assert difference(model(x).numpy(), made.model(x).numpy()).relative < 1e-5
    # what was channels last before comes back without a single permutation
    assert "Permute" not in kinds(made.model)
    assert made.model.count_params() <= model.count_params()


def test_embedding(tmp_path: Path, ingest: Ingest) -> None:
    fresh(0)
    b = Build(9)
    b.source = helper.make_tensor_value_info("x", TensorProto.INT64, ["n", 9])
    model = b.model(b.dense(b("ReduceMean", b("Gather", RNG.normal(size=(11, 3)), "x"), axes=[1], keepdims=0), 3, 2))
    outputs = ingest(save(model, tmp_path))
    assert outputs.facts["unbridged"] == []
    twin = keras.models.load_model(outputs.files["keras"].path, compile=False)
    assert kinds(twin) == ["InputLayer", "Embedding", "GlobalAveragePooling1D", "Dense"]


def test_free_sizes() -> None:
    fresh(0)
    b = Build(3, "h", "w")
    y = b("Relu", b.conv("x", 3, 4, pads=[1] * 4))
    made = bridge_onnx(b.model(b.dense(b("Flatten", b("GlobalAveragePool", y)), 4, 2)))
    assert made.model.input_shape == (None, 3, None, None)
    assert made.model(np.zeros((2, 3, 5, 9), np.float32)).shape == (2, 2)


# --- the whole step -------------------------------------------------------------------------------


def images(folder: Path, shape: tuple[int, ...], classes: int) -> Path:
    folder.mkdir()
    arrays = {split: RNG.integers(0, 255, (12, *shape), np.uint8) for split in SplitName}
    write_dataset(folder, arrays, {split: np.arange(12) % classes for split in SplitName}, Preprocess(scale=255.0))
    return folder


def test_onnx_checkpoint_is_trained_and_converted(tmp_path: Path, ingest: Ingest) -> None:
    """A torch-like NCHW checkpoint: narrowed, pruned, trained under quantization, converted for LiteRT."""
    from edgemill.distill.narrow import narrow
    from edgemill.prune.select import choose
    from edgemill.quantize.placement import build
    from edgemill.recipe import PruneMethod

    outputs = ingest(save(residual(), tmp_path), images(tmp_path / "data", (3, 9, 9), 4))
    assert outputs.facts["trainable"] is True
    assert outputs.facts["unbridged"] == []
    assert outputs.facts["compared_on"] == ["random", "real"]
    model = keras.models.load_model(outputs.files["keras"].path, compile=False)
    x = probe((3, 9, 9), 3, None)
    expected = OnnxFunction(outputs.files["onnx"].path)(x)
    assert difference(expected, model(x).numpy()).relative < 1e-5
    student = narrow(model, 0.5)
    assert student.output_shape == model.output_shape
    assert student.count_params() < model.count_params()
    assert any(choice.reason is None for choice in choose(model, PruneMethod.MAGNITUDE))
    qat = build(model)
    assert qat.left_out == {}
    qat.model.compile("sgd", "sparse_categorical_crossentropy")
    assert np.isfinite(qat.model.train_on_batch(x, np.arange(16) % 4))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    (tmp_path / "m.tflite").write_bytes(converter.convert())
    interpreter = tf.lite.Interpreter(str(tmp_path / "m.tflite"))
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    answers = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert difference(expected, answers).relative < 1e-4


def test_checkpoint_that_cannot_be_rebuilt_goes_on_for_inference(tmp_path: Path, ingest: Ingest) -> None:
    b = Build(2, 6, 6)
    outputs = ingest(save(b.model(b("Sin", b.conv("x", 2, 3))), tmp_path))
    assert set(outputs.files) == {"onnx"}
    assert outputs.facts["trainable"] is False
    assert [(item["layer"], item["class"]) for item in outputs.facts["unbridged"]] == [("sin_1", "Sin")]


def test_unequal_rebuild_is_dropped(tmp_path: Path, ingest: Ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong translation (here of ReLU) must not reach the outputs, nor stop the run."""
    from edgemill.ingest import onnx_bridge_values

    wrong = lambda graph, node, name: graph.layer("ReLU", name, negative_slope=0.01)  # noqa: E731
    monkeypatch.setitem(onnx_bridge_values._UNARY, "Relu", wrong)
    outputs = ingest(save(residual(), tmp_path))
    assert set(outputs.files) == {"onnx"}
    (item,) = outputs.facts["unbridged"]
    assert (item["layer"], item["class"]) == ("relu_1", "Relu")
    assert "the rebuilt model differs by" in item["reason"]


@pytest.mark.parametrize("form", ["tflite", "saved_model"])
def test_other_graphs_are_rebuilt_too(form: str, tmp_path: Path, ingest: Ingest) -> None:
    fresh(0)
    model = keras.Sequential([keras.Input((6, 6, 2)), L.Conv2D(4, 3, activation="relu"), L.Flatten(), L.Dense(3)])
    model.set_weights([RNG.normal(size=w.shape) for w in model.get_weights()])
    path = tmp_path / form
    if form == "tflite":
        path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    else:
        module = tf.Module()
        module.model = model
        call = tf.function(
            lambda x: model(x, training=False), input_signature=[tf.TensorSpec([None, 6, 6, 2], tf.float32, name="x")]
        )
        tf.saved_model.save(module, str(path), signatures={"serving_default": call})
    outputs = ingest(path)
    assert set(outputs.files) == {"onnx", "keras", form}
    assert outputs.facts["unbridged"] == []
    twin = keras.models.load_model(outputs.files["keras"].path, compile=False)
    x = probe((6, 6, 2), 1, None)
    assert difference(model(x).numpy(), twin(x).numpy()).relative < 1e-5
    assert twin.count_params() == model.count_params()
