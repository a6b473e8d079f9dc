"""Every accepted format gives ONNX that answers like the checkpoint; what is wrong is said."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemill.data import SplitName, write_dataset
from edgemill.errors import CheckpointError, DataError, RecipeError
from edgemill.ingest.compare import difference, probe
from edgemill.ingest.export import keras_to_onnx, save_keras
from edgemill.ingest.graph import OPSET, OnnxFunction
from edgemill.recipe import Preprocess
from edgemill.step import Outputs
from edgemill.tf import fresh, keras, tf
from tests.support.ingest_here import ingest_here

Ingest = Callable[..., Outputs]
SHAPE = (10, 10, 2)
L = keras.layers


def small_cnn(head: str = "softmax") -> Any:
    fresh(1)
    x = keras.Input(SHAPE, name="image")
    y = L.BatchNormalization()(L.Conv2D(6, 3, padding="same", use_bias=False, name="stem")(x))
    y = L.ReLU()(y)
    y = L.Add()([y, L.DepthwiseConv2D(3, padding="same")(y)])
    y = L.Dense(4, activation=head, name="head")(L.GlobalAveragePooling2D()(y))
    model = keras.Model(x, y)
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.2, 1.0, w.shape).astype(np.float32) for w in model.get_weights()])
    return model


def dataset(folder: Path, shape: tuple[int, ...] = SHAPE, classes: int = 4) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    images = {split: rng.integers(0, 255, (12, *shape), np.uint8) for split in SplitName}
    labels = {split: np.arange(12) % classes for split in SplitName}
    write_dataset(folder, images, labels, Preprocess(scale=255.0))
    return folder


def answers(outputs: Outputs, x: Any) -> Any:
    return OnnxFunction(outputs.files["onnx"].path)(x)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model in every format that Keras 2 and TensorFlow write."""
    folder = tmp_path_factory.mktemp("saved")
    model = small_cnn()
    model.save(folder / "m.h5")
    model.save(folder / "m.keras")
    model.save(folder / "saved_model", save_format="tf")
    model.save_weights(folder / "weights" / "w")
    tf.train.Checkpoint(model=model).save(str(folder / "train" / "ckpt"))
    keras_to_onnx(model, folder / "m.onnx")
    whole = onnx.load(folder / "m.onnx")
    (folder / "external").mkdir()
    onnx.save_model(
        whole, str(folder / "external" / "m.onnx"), save_as_external_data=True, location="m.bin", size_threshold=0
    )
    (folder / "m.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    serving = tf.function(lambda image: model(image, training=False))
    module = tf.Module()
    module.model = model
    signature = serving.get_concrete_function(tf.TensorSpec([None, *SHAPE], tf.float32, name="image"))
    tf.saved_model.save(module, str(folder / "plain"), signatures={"serving_default": signature})
    return folder


@pytest.mark.parametrize(
    ("name", "form", "files"),
    [
        ("m.h5", "keras2-h5", {"onnx", "keras"}),
        ("m.keras", "keras2-zip", {"onnx", "keras"}),
        ("saved_model", "saved-model", {"onnx", "keras", "saved_model"}),
        ("plain", "saved-model", {"onnx", "keras", "saved_model"}),
        ("weights", "tf-checkpoint", {"onnx", "keras"}),
        ("train", "tf-checkpoint", {"onnx", "keras"}),
        ("m.onnx", "onnx", {"onnx", "keras"}),
        ("external", "onnx", {"onnx", "keras"}),
        ("m.tflite", "tflite", {"onnx", "keras", "tflite"}),
    ],
)
def test_format(
    saved: Path, tmp_path: Path, ingest: Ingest, monkeypatch: pytest.MonkeyPatch, name: str, form: str, files: set[str]
) -> None:
    (tmp_path / "my_model.py").write_text(
        "import tf_keras as keras\n"
        f"def build():\n    return keras.models.load_model({str(saved / 'm.h5')!r}, compile=False)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("my_model", None)
    outputs = ingest(saved / name, dataset(tmp_path / "data"), model_function="python:my_model:build")
    x = probe(SHAPE, 7, None)
    assert difference(small_cnn()(x).numpy(), answers(outputs, x)).relative < 1e-5
    facts = outputs.facts
    assert facts["format"] == form
    assert facts["trainable"] is ("keras" in files)
    assert bool(facts["unbridged"]) is ("keras" not in files)
    assert set(outputs.files) == files
    assert facts["compared_on"] == ["random", "real"]
    assert facts["relative_difference"] < 1e-4
    assert facts["ends_in_softmax"] is True
    # batch normalization is folded: 6*2*9 + 6 + 6*9 + 6 + 6*4 + 4; 100 places, then one head
    assert facts["parameters"] == 202
    assert facts["macs"] == 100 * 6 * 2 * 9 + 100 * 6 * 9 + 6 * 4
    assert json.loads(json.dumps(facts)) == facts
    model = onnx.load(outputs.files["onnx"].path)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [OPSET]
    signature = outputs.files["onnx"].signature
    assert signature is not None
    assert [(spec.dtype, spec.shape) for spec in signature.inputs] == [("float32", (None, *SHAPE))]
    assert [spec.shape for spec in signature.outputs] == [(None, 4)]


def test_extension_and_name_do_not_matter(saved: Path, tmp_path: Path, ingest: Ingest) -> None:
    for name, wrong in (("m.keras", "a.onnx"), ("m.h5", "b"), ("m.tflite", "c.h5"), ("m.onnx", "d.keras")):
        (tmp_path / wrong).write_bytes((saved / name).read_bytes())
        (tmp_path / wrong).chmod(0o400)
        assert answers(ingest(tmp_path / wrong), probe(SHAPE, 1, None)).shape == (16, 4)


def test_same_checkpoint_gives_the_same_bytes(saved: Path, ingest: Ingest) -> None:
    first, second = (ingest(saved / "m.keras") for _ in range(2))
    for name in ("onnx", "keras"):
        assert first.files[name].path.read_bytes() == second.files[name].path.read_bytes()


def test_recurrent_models_give_the_same_bytes(tmp_path: Path) -> None:
    fresh(0)
    model = keras.Sequential([keras.Input((8, 3)), L.Bidirectional(L.LSTM(4, return_sequences=True)), L.GRU(3)])
    keras_to_onnx(model, tmp_path / "a.onnx")
    keras_to_onnx(model, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    x = probe((8, 3), 0, None)
    assert difference(model(x).numpy(), OnnxFunction(tmp_path / "b.onnx")(x)).relative < 1e-5


def test_free_dimensions_are_fixed_by_the_data(tmp_path: Path, ingest: Ingest) -> None:
    fresh(0)
    keras.Sequential([keras.Input((None, None, 2)), L.Conv2D(4, 3), L.GlobalAveragePooling2D(), L.Dense(4)]).save(
        tmp_path / "m.keras"
    )
    outputs = ingest(tmp_path / "m.keras", dataset(tmp_path / "data"))
    assert outputs.facts["inputs"][0]["shape"] == [None, *SHAPE]
    assert outputs.facts["macs"] == 64 * 4 * 2 * 9 + 4 * 4


def test_integer_input_of_an_embedding(tmp_path: Path, ingest: Ingest) -> None:
    fresh(0)
    x = keras.Input((9,), dtype="int32")
    keras.Model(x, L.Dense(2)(L.Flatten()(L.Embedding(11, 3)(x)))).save(tmp_path / "m.keras")
    outputs = ingest(tmp_path / "m.keras")
    assert outputs.facts["inputs"][0]["dtype"] == "float32"
    assert outputs.facts["trainable"] is True


def test_nested_keras2_models_and_arithmetic_become_one_flat_model(tmp_path: Path, ingest: Ingest) -> None:
    fresh(0)
    base = keras.Sequential([keras.Input(SHAPE), L.Conv2D(4, 3, name="conv"), L.BatchNormalization()], name="base")
    middle = keras.Sequential([keras.Input(SHAPE), base, L.Conv2D(3, 3, name="conv")], name="middle")
    x = keras.Input(SHAPE)
    y = middle(x / 127.5 - 1.0)
    z = tf.nn.relu6(y * 2.0 + L.Conv2D(3, 5, name="conv")(1.0 - x))
    model = keras.Model(x, L.Dense(3, name="head")(L.GlobalAveragePooling2D()(z - y)))
    model.save(tmp_path / "m.keras")
    outputs = ingest(tmp_path / "m.keras")
    flat = keras.models.load_model(outputs.files["keras"].path, compile=False)
    kinds = [type(layer).__name__ for layer in flat.layers]
    assert not {"Functional", "Sequential", "TFOpLambda"} & set(kinds)
    assert kinds.count("Conv2D") == 3
    images = probe(SHAPE, 3, None)
    expected = model(images).numpy()
    assert difference(expected, flat(images).numpy()).relative < 1e-5
    assert difference(expected, answers(outputs, images)).relative < 1e-5


def test_shared_nested_model_stays_shared(tmp_path: Path, ingest: Ingest) -> None:
    fresh(0)
    inner = keras.Sequential([keras.Input((6,)), L.Dense(6, activation="tanh")])
    x = keras.Input((6,))
    model = keras.Model(x, L.Add()([inner(x), inner(inner(x))]))
    model.save(tmp_path / "m.keras")
    outputs = ingest(tmp_path / "m.keras")
    flat = keras.models.load_model(outputs.files["keras"].path, compile=False)
    assert len(flat.weights) == 2
    values = probe((6,), 3, None)
    assert difference(model(values).numpy(), flat(values).numpy()).relative < 1e-5


def test_inspect_gives_facts_and_leaves_nothing(saved: Path) -> None:
    facts = ingest_here(saved / "m.keras")
    assert facts["format"] == "keras2-zip"
    assert facts["files"]["onnx"] > 800
    assert json.loads(json.dumps(facts)) == facts


# --- data that does not fit -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "word"), [((10, 10), "last axis"), ((10, 10, 3), "trained"), ((2, 10, 10), "order"), ((200,), "trained")]
)
def test_samples_of_another_shape(saved: Path, tmp_path: Path, ingest: Ingest, shape: Any, word: str) -> None:
    if shape == (10, 10):
        fresh(0)
        keras.Sequential([keras.Input((10, 10, 1)), L.Flatten(), L.Dense(4)]).save(tmp_path / "m.keras")
    else:
        (tmp_path / "m.keras").write_bytes((saved / "m.keras").read_bytes())
    with pytest.raises(DataError) as caught:
        ingest(tmp_path / "m.keras", dataset(tmp_path / "data", shape))
    text = str(caught.value)
    assert "(10, 10, " in text
    assert str(shape).rstrip(",)") in text
    assert word in text


def test_more_classes_than_outputs(saved: Path, tmp_path: Path, ingest: Ingest) -> None:
    with pytest.raises(DataError, match="labels do not fit") as caught:
        ingest(saved / "m.keras", dataset(tmp_path / "data", classes=7))
    assert "labels 0..3" in str(caught.value)
    assert "labels 0..6" in str(caught.value)
    assert "split train" in str(caught.value)


# --- checkpoints that are refused -------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("version", [2, 3])
def test_lambda_is_refused_and_named_and_runs_when_trusted(
    tmp_path: Path, ingest: Ingest, suffix: str, version: int
) -> None:
    framework = keras
    if version == 3:
        from edgemill.ingest.keras3 import keras3 as framework
    x = framework.Input((5,))
    y = framework.layers.Lambda(lambda t: t * 2.0, output_shape=(5,), name="doubles")(x)
    framework.Model(x, framework.layers.Dense(3)(y)).save(tmp_path / f"m{suffix}")
    with pytest.raises(CheckpointError) as caught:
        ingest(tmp_path / f"m{suffix}")
    assert "'doubles'" in str(caught.value)
    assert "checkpoint.trust: true" in str(caught.value)
    outputs = ingest(tmp_path / f"m{suffix}", trust=True)
    assert outputs.facts["trainable"] is False
    assert [item["layer"] for item in outputs.facts["unbridged"]] == ["doubles"]


def test_custom_layer_is_refused(tmp_path: Path, ingest: Ingest) -> None:
    class Mine(L.Layer):
        def call(self, x: Any) -> Any:
            return x

    keras.Sequential([keras.Input((5,)), Mine(name="special"), L.Dense(2)]).save(tmp_path / "m.keras")
    with pytest.raises(CheckpointError) as caught:
        ingest(tmp_path / "m.keras")
    assert "'special' (Mine)" in str(caught.value)


def test_saved_model_with_custom_layer_needs_no_trust_for_inference(tmp_path: Path, ingest: Ingest) -> None:
    class Mine(L.Layer):
        def call(self, x: Any) -> Any:
            return tf.sin(x)

    model = keras.Sequential([keras.Input((5,)), Mine(name="special"), L.Dense(2)])
    model.save(tmp_path / "sm", save_format="tf")
    outputs = ingest(tmp_path / "sm")
    assert outputs.facts["trainable"] is False
    assert [item["layer"] for item in outputs.facts["unbridged"]] == ["special"]
    x = probe((5,), 0, None)
    assert difference(model(x).numpy(), answers(outputs, x)).relative < 1e-5


def test_saved_model_that_reads_files_is_refused(tmp_path: Path, ingest: Ingest) -> None:
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32)])
    def steal(x: Any) -> Any:
        return x + tf.cast(tf.strings.length(tf.io.read_file("/etc/passwd")), tf.float32)

    tf.saved_model.save(module, str(tmp_path / "sm"), signatures={"serving_default": steal})
    with pytest.raises(CheckpointError, match="reaches outside") as caught:
        ingest(tmp_path / "sm")
    assert "ReadFile" in str(caught.value)


@pytest.mark.parametrize("name", ["m.h5", "m.keras"])
def test_nan_in_keras_weights(saved: Path, tmp_path: Path, ingest: Ingest, name: str) -> None:
    model = keras.models.load_model(saved / name, compile=False)
    kernel = model.get_layer("stem").kernel
    values = kernel.numpy()
    values[0, 0, 0, :3] = np.nan
    kernel.assign(values)
    model.save(tmp_path / name)
    with pytest.raises(CheckpointError, match="NaN or infinite") as caught:
        ingest(tmp_path / name)
    assert "stem/kernel:0: 3 of 108" in str(caught.value)


def test_nan_in_onnx_and_in_saved_model(saved: Path, tmp_path: Path, ingest: Ingest) -> None:
    model = onnx.load(saved / "m.onnx")
    tensor = next(t for t in model.graph.initializer if len(t.dims) == 4)
    values = numpy_helper.to_array(tensor).copy()
    values.reshape(-1)[5] = np.inf
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(CheckpointError, match="NaN or infinite") as caught:
        ingest(tmp_path / "m.onnx")
    assert f"{tensor.name}: 1 of" in str(caught.value)
    broken = small_cnn()
    broken.get_layer("head").bias.assign([0.0, np.nan, 0.0, 0.0])
    broken.save(tmp_path / "sm", save_format="tf")
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        ingest(tmp_path / "sm")


def test_several_inputs(tmp_path: Path, ingest: Ingest) -> None:
    a, b = keras.Input((3,)), keras.Input((3,))
    keras.Model([a, b], L.Add()([a, b])).save(tmp_path / "m.keras")
    with pytest.raises(CheckpointError, match="exactly one input"):
        ingest(tmp_path / "m.keras")


def test_quantized_models_are_refused(saved: Path, tmp_path: Path, ingest: Ingest) -> None:
    converter = tf.lite.TFLiteConverter.from_keras_model(small_cnn())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([probe(SHAPE, i, None)[:1]] for i in range(4))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    (tmp_path / "int8.tflite").write_bytes(converter.convert())
    with pytest.raises(CheckpointError, match="quantized already"):
        ingest(tmp_path / "int8.tflite")
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(saved / "m.onnx", tmp_path / "dynamic.onnx")
    with pytest.raises(CheckpointError, match="quantized already"):
        ingest(tmp_path / "dynamic.onnx")


def test_size_limit(saved: Path, ingest: Ingest) -> None:
    with pytest.raises(CheckpointError, match="too large"):
        ingest(saved / "m.onnx", max_bytes=500)
    with pytest.raises(CheckpointError, match="too large"):
        ingest(saved / "saved_model", max_bytes=500)


def test_tf_checkpoint_needs_the_right_function(saved: Path, tmp_path: Path, ingest: Ingest) -> None:
    with pytest.raises(RecipeError, match="no model") as caught:
        ingest(saved / "weights")
    assert "checkpoint.model_function" in str(caught.value)
    (tmp_path / "other_model.py").write_text(
        "import tf_keras as keras\n"
        "def build():\n    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])\n"
        "def wrong():\n    return 7\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(CheckpointError, match="cannot be read into the model"):
            ingest(saved / "weights", model_function="python:other_model:build")
        with pytest.raises(RecipeError, match="something else"):
            ingest(saved / "weights", model_function="python:other_model:wrong")
        with pytest.raises(RecipeError, match="failed"):
            ingest(saved / "weights", model_function="python:other_model:absent")
    finally:
        sys.path.remove(str(tmp_path))


def test_external_weights_of_hdf5_are_refused(saved: Path, tmp_path: Path, ingest: Ingest) -> None:
    (tmp_path / "m.h5").write_bytes((saved / "m.h5").read_bytes())
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        del file["model_weights/head"]
        file["model_weights/head"] = h5py.ExternalLink(str(saved / "m.h5"), "/model_weights/head")
    with pytest.raises(CheckpointError, match="not its own data"):
        ingest(tmp_path / "m.h5")


# --- ONNX of other makes ----------------------------------------------------------------------


def foreign_onnx(kind: str) -> onnx.ModelProto:
    """A small graph as other exporters write it: NCHW, Conv, Reshape, Gemm."""
    rng = np.random.default_rng(0)
    number = np.float16 if kind == "half" else np.float32
    conv = numpy_helper.from_array(rng.normal(size=(4, 3, 3, 3)).astype(number), "conv.weight")
    bias = numpy_helper.from_array(rng.normal(size=4).astype(number), "conv.bias")
    dense = numpy_helper.from_array(rng.normal(size=(144, 5)).astype(number), "fc.weight")
    shape = numpy_helper.from_array(np.array([1 if kind == "reshape" else 0, -1], np.int64), "shape")
    element = helper.np_dtype_to_tensor_dtype(np.dtype(number))
    batch: Any = 1 if kind in ("fixed", "reshape") else "n"
    integer = TensorProto.UINT8 if kind == "integer" else element
    x = helper.make_tensor_value_info("x", integer, [batch, 3, 8, 8])
    y = helper.make_tensor_value_info("y", element, [batch, 5])
    nodes = [
        helper.make_node("Conv", ["x0" if kind == "integer" else "x", "conv.weight", "conv.bias"], ["c"]),
        helper.make_node("Reshape", ["c", "shape"], ["r"]),
        helper.make_node("Gemm", ["r", "fc.weight"], ["y"]),
    ]
    if kind == "integer":
        nodes.insert(0, helper.make_node("Cast", ["x"], ["x0"], to=element))
    graph = helper.make_graph(nodes, "g", [x], [y], [conv, bias, dense, shape])
    opset = {"old": 11, "new": 20}.get(kind, 17)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("kind", ["plain", "fixed", "reshape", "half", "integer", "old", "new"])
def test_foreign_onnx(tmp_path: Path, ingest: Ingest, kind: str) -> None:
    onnx.save(foreign_onnx(kind), tmp_path / "m.onnx")
    tolerance = 1e-2 if kind == "half" else 1e-4
    outputs = ingest(tmp_path / "m.onnx", tolerance=tolerance)
    assert outputs.facts["inputs"][0]["shape"] == [None, 3, 8, 8]
    assert outputs.facts["inputs"][0]["dtype"] == outputs.facts["outputs"][0]["dtype"] == "float32"
    assert outputs.facts["macs"] == 36 * 4 * 27 + 144 * 5
    x = (np.random.default_rng(1).random((3, 3, 8, 8), np.float32) * 2).astype(np.float32)
    together = answers(outputs, x)
    assert together.shape == (3, 5)
    alone = np.concatenate([answers(outputs, x[i : i + 1]) for i in range(3)])
    assert np.allclose(together, alone, atol=1e-5)
    model = onnx.load(outputs.files["onnx"].path)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [OPSET]


def test_double_precision_onnx(tmp_path: Path, ingest: Ingest) -> None:
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(size=(6, 3)), "w")
    x, y = (helper.make_tensor_value_info(n, TensorProto.DOUBLE, ["n", s]) for n, s in (("x", 6), ("y", 3)))
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    facts = ingest(tmp_path / "m.onnx").facts
    assert facts["inputs"][0]["dtype"] == facts["outputs"][0]["dtype"] == "float32"
    assert facts["macs"] == facts["parameters"] == 18


def test_graph_that_relies_on_its_batch_size(tmp_path: Path, ingest: Ingest) -> None:
    model = foreign_onnx("fixed")
    model.graph.node.extend(
        [helper.make_node("ReduceMean", ["y0"], ["mean"], axes=[0]), helper.make_node("Sub", ["y0", "mean"], ["y"])]
    )
    model.graph.node[2].output[0] = "y0"
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(CheckpointError, match="one batch size only"):
        ingest(tmp_path / "m.onnx")


def test_runtime_specific_operators_are_named(tmp_path: Path, ingest: Ingest) -> None:
    model = foreign_onnx("plain")
    model.graph.node[0].domain = "com.microsoft"
    model.graph.node[0].op_type = "FusedConv"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(CheckpointError, match="outside the ONNX standard") as caught:
        ingest(tmp_path / "m.onnx")
    assert "com.microsoft:FusedConv" in str(caught.value)


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    model = small_cnn()
    save_keras(model, tmp_path / "a.keras")
    again = keras.models.load_model(tmp_path / "a.keras", compile=False)
    save_keras(again, tmp_path / "b.keras")
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()
