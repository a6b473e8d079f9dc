"""SavedModel folders: Keras 2 models with their metadata, or just a serving signature."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from edgemill.errors import CheckpointError
from edgemill.ingest.detect import Format
from edgemill.ingest.export import function_to_onnx
from edgemill.ingest.keras2 import first_output, from_keras2, is_known
from edgemill.ingest.loaded import Loaded, Unbridged
from edgemill.ingest.safety import require_finite, unsafe_parts
from edgemill.recipe import Checkpoint
from edgemill.tf import keras, tf

# Operators that read or write files, or call Python, when the graph is run. The saver's own functions
# (SaveV2, RestoreV2) are in every SavedModel and are not run.
_FORBIDDEN = {
    "ReadFile", "WriteFile", "MatchingFiles", "PyFunc", "PyFuncStateless", "EagerPyFunc", "ImmutableConst", "PrintV2",
    "LoadAndRemapMatrix", "TextLineReaderV2", "WholeFileReaderV2", "TFRecordReaderV2", "FixedLengthRecordReaderV2",
    "TextLineDataset", "TFRecordDataset", "FixedLengthRecordDatasetV2", "DebugIdentity", "DebugIdentityV2",
    "DebugNumericSummary", "CreateSummaryFileWriter", "InitializeTableFromTextFileV2", "SaveDataset", "SaveDatasetV2",
    "LoadDataset", "DatasetToTFRecord",
}  # fmt: skip


def load_saved_model(path: Path, settings: Checkpoint) -> Loaded:
    """Load a SavedModel folder.

    Args:
        path: the folder.
        settings: trust, and the tolerance for a recovered Keras model.

    Raises:
        CheckpointError: it is damaged, reaches for files or Python, or has no usable signature.
    """
    _require_safe_graph(path, settings.trust)
    signature, module = _serving(path)
    loaded = _inference_only(path, signature, module)
    found, model = _keras_model(path)
    if model is None:
        loaded.unbridged = found
        return loaded
    recovered = from_keras2(model, Format.SAVED_MODEL, path.name, [])
    recovered.original = loaded.original
    recovered.saved_model = path
    return recovered


def _require_safe_graph(path: Path, trust: bool) -> None:
    from tensorflow.core.protobuf import saved_model_pb2  # after edgemill.tf has set TensorFlow up

    proto = saved_model_pb2.SavedModel()
    try:
        proto.ParseFromString((path / "saved_model.pb").read_bytes())
    except DecodeError as error:
        raise CheckpointError(
            "The SavedModel is truncated or damaged.",
            where=f"{path.name}/saved_model.pb",
            expected="a complete SavedModel",
            got=str(error),
            remedy="copy or save it again",
        ) from error
    found = sorted({node.op for node in _nodes(proto) if node.op in _FORBIDDEN})
    if found and not trust:
        raise CheckpointError(
            "The SavedModel's graph reaches outside itself.",
            where=path.name,
            expected="a graph that only computes",
            got=f"operators {', '.join(found)}",
            remedy="set checkpoint.trust: true if you know who made it, or export the model without these operators",
        )


def _nodes(proto: Any) -> Iterator[Any]:
    for meta in proto.meta_graphs:
        yield from meta.graph_def.node
        for function in meta.graph_def.library.function:
            yield from function.node_def


def _serving(path: Path) -> tuple[Any, Any]:
    try:
        module = tf.saved_model.load(str(path))
        signatures = dict(module.signatures)
    except Exception as error:  # TensorFlow raises anything on damaged folders
        raise CheckpointError(
            "TensorFlow cannot load the SavedModel.",
            where=path.name,
            got=f"{type(error).__name__}: {error}"[:1000],
            remedy="copy or save it again",
        ) from error
    signature = signatures.get("serving_default") or (next(iter(signatures.values())) if len(signatures) == 1 else None)
    inputs = [] if signature is None else list(signature.structured_input_signature[1].values())
    if signature is None or len(inputs) != 1 or not inputs[0].shape.rank:
        raise CheckpointError(
            "The SavedModel has no usable signature.",
            where=path.name,
            expected="a signature serving_default with one input tensor, batch first",
            got=", ".join(f"{name} ({len(s.structured_input_signature[1])} inputs)" for name, s in signatures.items())
            or "no signature",
            remedy="save it with signatures={'serving_default': ...}",
        )
    if inputs[0].shape[0] is not None:
        raise CheckpointError(
            "The SavedModel works with one batch size only.",
            where=path.name,
            expected="a free batch size",
            got=f"input {inputs[0].name!r} of shape {tuple(inputs[0].shape)}",
            remedy="save it with an input specification whose first axis is None",
        )
    return signature, module


def _inference_only(path: Path, signature: Any, module: Any) -> Loaded:
    (name, spec), *_ = signature.structured_input_signature[1].items()
    outputs = sorted(signature.structured_outputs)
    require_finite(((v.name, v.numpy()) for v in signature.variables), path.name)

    def call(x: Any) -> Any:
        return signature(**{name: tf.cast(x, spec.dtype)})

    def original(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return first_output(call(tf.constant(x))[outputs[0]])

    shape = tuple(spec.shape[1:])
    loaded = Loaded(
        form=Format.SAVED_MODEL,
        original=original,
        input_shape=shape,
        write_onnx=lambda target, fixed: function_to_onnx(call, name, fixed or shape, outputs, target),
        saved_model=path,
        vocabulary=None if spec.dtype.is_floating else 2,
    )
    loaded.notes["checkpoint_parameters"] = int(sum(np.prod(v.shape) for v in signature.variables))
    loaded.keep_alive = module  # its variables die with it
    return loaded


def _keras_model(path: Path) -> tuple[list[Unbridged], Any]:
    """The Keras 2 model in the folder, or the reasons why there is none to train."""

    def give_up(kind: str, reason: str) -> tuple[list[Unbridged], Any]:
        return [Unbridged(layer=path.name, kind=kind, reason=reason)], None

    from tf_keras.protobuf import saved_metadata_pb2  # after edgemill.tf has set TensorFlow up

    file = path / "keras_metadata.pb"
    if not file.is_file():
        return give_up("SavedModel", "holds no Keras metadata, only the graph of its signature")
    metadata = saved_metadata_pb2.SavedMetadata()
    try:
        metadata.ParseFromString(file.read_bytes())
        configs = [json.loads(node.metadata) for node in metadata.nodes if node.metadata.startswith("{")]
    except (DecodeError, ValueError, RecursionError) as error:
        return give_up("SavedModel", f"its Keras metadata is damaged: {error}")
    unsafe = unsafe_parts(configs, is_known)
    if unsafe:  # the graph itself is safe, so nothing needs to be trusted: it goes on for inference
        return [Unbridged(layer=part.layer, kind=part.kind, reason=part.reason) for part in unsafe], None
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:  # noqa: BLE001  (Keras raises anything on damaged metadata)
        return give_up("SavedModel", f"Keras 2 cannot rebuild it: {type(error).__name__}: {error}"[:500])
    if not isinstance(model, keras.Model) or len(getattr(model, "inputs", None) or []) != 1:
        return give_up(type(model).__name__, "not a functional or sequential model with one input")
    return [], model
