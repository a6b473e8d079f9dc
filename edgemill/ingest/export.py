"""Keras 2 to ONNX, the one way used by every stage."""

from __future__ import annotations

import json
import logging
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgemill.artifact import Signature
from edgemill.errors import CheckpointError, ToolchainError
from edgemill.ingest.canonical import canonicalize
from edgemill.ingest.graph import OPSET, name_free_dimensions, save
from edgemill.tf import keras, tf

_DATE = "1980-01-01@00:00:00"  # as early as a zip file can say
logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)


def keras_to_onnx(model: keras.Model, path: Path, input_shape: tuple[int, ...] | None = None) -> Signature:
    """Write a tf_keras model as fp32 ONNX, opset 17, in the model's own layout (NHWC stays NHWC).

    The batch size is free. Batch normalization is folded into the convolution before it, and
    training-only layers vanish, as tf2onnx does it.

    Args:
        model: built model with one input. Integer inputs (Embedding) are taken as float32 and cast.
        path: file to write.
        input_shape: one sample's shape, to fix dimensions that the model leaves free.

    Raises:
        CheckpointError: the model has more than one input, or `input_shape` contradicts it.
        ToolchainError: tf2onnx cannot express the model, or the graph is not valid.
    """
    if len(model.inputs) != 1:
        raise CheckpointError(
            "The model does not have exactly one input.",
            where=model.name,
            expected="one input tensor",
            got=f"{len(model.inputs)}: {', '.join(tensor.name for tensor in model.inputs)}",
            remedy="wrap it in a model with a single input",
        )
    shape = _fixed(tuple(model.inputs[0].shape[1:]), input_shape, model.name)
    name = model.input_names[0] if model.input_names else "input"

    names = list(model.output_names) or ["output"]
    return function_to_onnx(lambda x: model(x, training=False), name, shape, names, path)


def save_keras(model: keras.Model, path: Path) -> None:
    """Write a tf_keras model as `.keras`; the same model always gives the same bytes.

    Keras itself notes the time of saving and memory addresses, and so gives every copy another digest.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        stamped = Path(folder) / "model.keras"
        model.save(stamped)
        with zipfile.ZipFile(stamped) as source, zipfile.ZipFile(path, "w") as target:
            for name in sorted(source.namelist()):
                content = source.read(name)
                if name == "metadata.json":
                    content = json.dumps(json.loads(content) | {"date_saved": _DATE}).encode()
                elif name == "config.json":
                    content = json.dumps(_number_objects(json.loads(content), {})).encode()
                target.writestr(zipfile.ZipInfo(name), content)


def _number_objects(value: Any, numbers: dict[int, int]) -> Any:
    """A configuration with shared objects numbered in order instead of by address."""
    if isinstance(value, list):
        return [_number_objects(item, numbers) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: numbers.setdefault(item, len(numbers)) if key == "shared_object_id" else _number_objects(item, numbers)
        for key, item in value.items()
    }


def function_to_onnx(
    call: Callable[[Any], Any], input_name: str, shape: tuple[int | None, ...], output_names: list[str], path: Path
) -> Signature:
    """Write a TensorFlow function of one float32 batch as ONNX.

    Args:
        call: takes float32 (N, *shape), returns a tensor or a structure of tensors.
        input_name: name of the ONNX input.
        shape: of one sample; None where the size is free.
        output_names: names of the ONNX outputs, in the order of the flattened structure.
        path: file to write.

    Raises:
        ToolchainError: tf2onnx cannot express the function, or the graph is not valid.
    """
    spec = tf.TensorSpec([None, *shape], tf.float32, name="x")

    def flat(x: Any) -> list[Any]:
        return [tf.identity(answer) for answer in tf.nest.flatten(call(x))]

    try:
        concrete = _trace(flat, spec)
        model = _convert(concrete, _plain(input_name), _distinct([_plain(name) for name in output_names]))
    except Exception as error:  # tf2onnx and TensorFlow raise anything here
        raise ToolchainError(
            "tf2onnx cannot convert the model.", where=path.name, got=f"{type(error).__name__}: {error}"[:2000]
        ) from error
    name_free_dimensions(model)
    canonicalize(model)
    return save(model, path)


def _trace(call: Callable[[Any], Any], spec: Any) -> Any:
    concrete = tf.function(call, input_signature=[spec]).get_concrete_function()
    if not any("_XlaMustCompile" in operation.node_def.attr for operation in concrete.graph.get_operations()):
        return concrete
    # Keras compiles grouped convolutions with XLA, and such a call is not inlined: trace through it instead.
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        return tf.function(call, input_signature=[spec]).get_concrete_function()
    finally:
        tf.config.run_functions_eagerly(before)


def _convert(concrete: Any, input_name: str, output_names: list[str]) -> onnx.ModelProto:
    """As tf2onnx.convert.from_function, but constants captured by the function stay constants.

    There they become inputs of the graph, which breaks every adapted Normalization layer.
    """
    from tf2onnx import optimizer, tf_loader, tfonnx  # they import TensorFlow, which edgemill.tf must set up first

    source = concrete.inputs[0].name
    outputs = [tensor.name for tensor in concrete.outputs]
    with tf.device("/cpu:0"):
        frozen = tf_loader.from_function(concrete, [source], outputs)
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(frozen, name="")
            converted = tfonnx.process_tf_graph(
                graph,
                continue_on_error=True,  # what it does not know is named by `save`, all at once
                opset=OPSET,
                input_names=[source],
                output_names=outputs,
                custom_op_handlers={"Erfc": (_erfc, [])},
                tensors_to_rename={source: input_name} | dict(zip(outputs, output_names, strict=True)),
            )
            model: onnx.ModelProto = optimizer.optimize_graph(converted).make_model("edgemill")
    return model


def _erfc(ctx: Any, node: Any, name: str, args: Any) -> None:
    """Erfc(x) = 1 - Erf(x): TensorFlow writes GELU with it, ONNX has only Erf."""
    node.type, node.domain = "Erf", ""
    one = ctx.make_const(f"{name}_one", np.array(1.0, np.float32)).output[0]
    output = node.output[0]
    ctx.insert_new_node_on_output("Sub", output, name=f"{name}_sub", inputs=[one, output])


def _fixed(shape: tuple[int | None, ...], wanted: tuple[int, ...] | None, name: str) -> tuple[int | None, ...]:
    if wanted is None:
        return shape
    if len(shape) != len(wanted) or any(a is not None and a != b for a, b in zip(shape, wanted, strict=True)):
        raise CheckpointError(
            "The sample shape contradicts the model.", where=name, expected=str(shape), got=str(wanted)
        )
    return wanted


def _plain(name: str) -> str:
    """A name that TensorFlow accepts for an argument."""
    plain = "".join(c if c.isalnum() else "_" for c in name).strip("_")
    return plain if plain and plain[0].isalpha() else f"input_{plain}".rstrip("_")


def _distinct(names: list[str]) -> list[str]:
    return [name if names.index(name) == i else f"{name}_{i}" for i, name in enumerate(names)]
