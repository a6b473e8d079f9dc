"""Float TFLite files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from edgemill.errors import CheckpointError
from edgemill.ingest.canonical import canonicalize
from edgemill.ingest.detect import Format
from edgemill.ingest.graph import OPSET, unknown_operators
from edgemill.ingest.loaded import Loaded, Unbridged
from edgemill.ingest.onnx_file import from_onnx, open_session
from edgemill.tf import tf

_GIVE = "give the checkpoint from which the file was converted"


def load_tflite(path: Path, work: Path) -> Loaded:
    """Load a TFLite file, for inference only.

    Args:
        path: the file.
        work: folder for its ONNX form.

    Raises:
        CheckpointError: it is damaged, quantized already, or has operators that ONNX has not.
    """
    interpreter = _open(path)
    _require_float(interpreter, path.name)
    converted = work / "converted.onnx"
    model = _convert(path, converted)
    loaded = from_onnx(model, open_session(converted, path.name), Format.TFLITE, path.name)
    source, answer = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def original(x: NDArray[np.float32]) -> NDArray[np.float32]:
        if source["shape"][1:].tolist() != list(x.shape[1:]):
            interpreter.resize_tensor_input(source["index"], (1, *x.shape[1:]))
            interpreter.allocate_tensors()
        answers = []
        for sample in x:
            interpreter.set_tensor(source["index"], sample[np.newaxis].astype(source["dtype"]))
            interpreter.invoke()
            answers.append(np.array(interpreter.get_tensor(answer["index"]), dtype=np.float32))
        return np.concatenate(answers)

    loaded.original = original
    loaded.tflite = path
    reason = "a TFLite file holds no trainable model"
    loaded.unbridged = [Unbridged(layer=path.name, kind=str(Format.TFLITE), reason=reason)]
    return loaded


def _open(path: Path) -> Any:
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
    except Exception as error:  # the interpreter raises ValueError or RuntimeError with a C++ text
        raise CheckpointError(
            "The TFLite file is damaged or needs operators that are not built in.",
            where=path.name,
            expected="a complete TFLite file with built-in operators",
            got=str(error)[:500],
            remedy="convert or copy it again",
        ) from error
    inputs = interpreter.get_input_details()
    if len(inputs) != 1:
        raise CheckpointError(
            "The model does not have exactly one input.", where=path.name, got=f"{len(inputs)} inputs", remedy=_GIVE
        )
    if int(inputs[0]["shape"][0]) != 1:
        raise CheckpointError(
            "The TFLite model has no batch axis of size 1.",
            where=path.name,
            expected="an input of shape (1, ...)",
            got=str(tuple(inputs[0]["shape"])),
            remedy="convert it again without a fixed batch size",
        )
    return interpreter


def _require_float(interpreter: Any, where: str) -> None:
    quantized = [
        tensor["name"]
        for tensor in interpreter.get_tensor_details()
        if np.issubdtype(tensor["dtype"], np.integer) and tensor["quantization_parameters"]["scales"].size
    ]
    if quantized:
        raise CheckpointError(
            "The model is quantized already.",
            where=where,
            expected="a float model",
            got=f"{len(quantized)} quantized tensors, the first is {quantized[0]!r}",
            remedy=_GIVE,
        )


def _convert(path: Path, target: Path) -> onnx.ModelProto:
    from tf2onnx import optimizer, tfonnx  # they import TensorFlow, which edgemill.tf must set up first

    try:
        with tf.device("/cpu:0"), tf.Graph().as_default() as graph:
            converted = tfonnx.process_tf_graph(graph, continue_on_error=True, opset=OPSET, tflite_path=str(path))
            model: onnx.ModelProto = optimizer.optimize_graph(converted).make_model("edgemill")
        missing = unknown_operators(model)
    except Exception as error:  # tf2onnx raises anything on what it does not know
        raise CheckpointError(
            "The TFLite file cannot be converted to ONNX.",
            where=path.name,
            got=f"{type(error).__name__}: {error}"[:500],
            remedy=_GIVE,
        ) from error
    if missing:
        raise CheckpointError(
            "The TFLite file has operators that ONNX has not.", where=path.name, got=", ".join(missing), remedy=_GIVE
        )
    canonicalize(model)
    onnx.save_model(model, str(target))
    return model
