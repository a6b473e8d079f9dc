"""Running the LiteRT converter, and reading what it made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgemill.errors import ToolchainError
from edgemill.tf import tf


def convert_keras(model: Any, configure: Callable[[Any], None], where: str) -> bytes:
    """Convert a Keras model, with free batch size if that can be done, else for batches of one.

    Recurrent layers convert only with a fixed batch size.

    Args:
        model: functional or sequential tf_keras model.
        configure: sets the options of a TFLiteConverter.
        where: for the error message.

    Raises:
        ToolchainError: the converter failed.
    """
    free = tf.lite.TFLiteConverter.from_keras_model(model)
    configure(free)
    try:
        return convert(free, where)
    except ToolchainError:
        (entry,) = model.inputs
        one = tf.TensorSpec([1, *entry.shape[1:]], entry.dtype, name=model.input_names[0])
        call = tf.function(lambda x: model(x, training=False)).get_concrete_function(one)
        fixed = tf.lite.TFLiteConverter.from_concrete_functions([call], model)
        configure(fixed)
        return convert(fixed, where)


def convert(converter: Any, where: str) -> bytes:
    """Run a TFLiteConverter.

    Raises:
        ToolchainError: it failed; with the operators it names.
    """
    try:
        content: bytes = converter.convert()
    except Exception as error:  # the converter raises anything
        raise ToolchainError(
            "The LiteRT converter failed.",
            where=where,
            got=f"{type(error).__name__}: {_essence(str(error))}",
            remedy="the operators it names have no form in the wanted number format; try scheme fp16 or int8_dynamic",
        ) from error
    return content


def int8_io(converter: Any) -> None:
    """Let input and output be int8 themselves: what phones' and microcontrollers' drivers hand over.

    Their scale and zero point stand in the file.
    """
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8


def describe(path: Path) -> dict[str, Any]:
    """Operators of a LiteRT file by name, and bytes of its constants by element type (JSON values)."""

    # Without the delegate, which would show all operators as one.
    interpreter = Interpreter(
        model_path=str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    operators = Counter(item["op_name"] for item in interpreter._get_ops_details())
    made = {int(i) for item in interpreter._get_ops_details() for i in item["outputs"]}
    entries = {int(item["index"]) for item in interpreter.get_input_details()}
    constants: Counter[str] = Counter()
    activations: Counter[str] = Counter()
    for tensor in interpreter.get_tensor_details():
        kind = np.dtype(tensor["dtype"]).name
        if tensor["index"] in made | entries:
            activations[kind] += 1
        else:
            constants[kind] += int(np.prod(tensor["shape"])) * np.dtype(tensor["dtype"]).itemsize
    return {
        "operators": dict(sorted(operators.items())),
        "constant_bytes": dict(sorted(constants.items())),
        "activation_tensors": dict(sorted(activations.items())),
    }


def _essence(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    named = [line for line in lines if "error:" in line or "Ops:" in line]
    return "\n".join((named or lines)[-10:])[:2000]
