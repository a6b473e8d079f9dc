"""The ingested checkpoint as a teacher: its answers through onnxruntime, never trained."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgemill.errors import CheckpointError

_PASS_THROUGH = {"Identity", "Dropout"}
_CHANNELS_FIRST = {
    "Conv",
    "ConvTranspose",
    "BatchNormalization",
    "InstanceNormalization",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
}
_ELEMENTWISE = {
    "Add",
    "Clip",
    "Div",
    "Dropout",
    "Elu",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Max",
    "Min",
    "Mul",
    "PRelu",
    "Relu",
    "Selu",
    "Sigmoid",
    "Softplus",
    "Sub",
    "Tanh",
}
_DENSE = {"Gemm", "MatMul"}
_RANK_OF_VECTORS = 2


@dataclass(frozen=True)
class TeacherMap:
    """An intermediate tensor of the teacher that a student can imitate.

    Attributes:
        tensor: its name in the ONNX graph.
        spatial: sizes of the spatial axes, () for a vector.
        channels: size of the channel axis.
    """

    tensor: str
    spatial: tuple[int, ...]
    channels: int


class Teacher:
    """Answers of an ONNX model.

    Args:
        onnx_path: fp32 ONNX file with one input whose batch dimension is free.
        features: names of intermediate tensors for `answers`; spatial ones must be channels first
            (see `feature_maps`).
        threads: threads of onnxruntime; the CPUs of this process by default.

    Attributes:
        final: `softmax`, `sigmoid` or `linear`: what the graph ends in.
        features: the names given.

    Raises:
        CheckpointError: onnxruntime does not take the file.
    """

    def __init__(self, onnx_path: Path, features: tuple[str, ...] = (), threads: int | None = None) -> None:
        model = onnx.load(str(onnx_path))
        self._path = onnx_path
        self._threads = threads or len(os.sched_getaffinity(0))
        self._output = model.graph.output[0].name
        self.final, self._logits = _before_final_activation(model)
        self.features = features
        self._session = self._open(model, (self._logits, *features))
        self._input = self._session.get_inputs()[0].name

    def _open(self, model: onnx.ModelProto, tensors: tuple[str, ...]) -> ort.InferenceSession:
        exposed = onnx.ModelProto()
        exposed.CopyFrom(model)
        known = {value.name for value in exposed.graph.output}
        for name in tensors:
            if name not in known:
                known.add(name)
                exposed.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        # Spinning threads would take the cores from TensorFlow, which trains at the same time.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            return ort.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise CheckpointError(
                "onnxruntime does not take the teacher.",
                where=str(self._path),
                got=str(error),
                remedy="check the checkpoint with `edgemill inspect`",
            ) from error

    def outputs(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The model's own output, float32 (N, ...), for x: float32 (N, *sample_shape)."""
        answer: NDArray[np.float32] = self._session.run([self._output], {self._input: x})[0]
        return answer

    def logits(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The output, float32 (N, classes), before a final softmax or sigmoid if there is one."""
        answer: NDArray[np.float32] = self._session.run([self._logits], {self._input: x})[0]
        return answer

    def answers(self, x: NDArray[np.float32], logits: bool = True) -> tuple[NDArray[np.float32], ...]:
        """Output and feature maps in one run.

        Args:
            x: float32 (N, *sample_shape).
            logits: give the output before a final softmax or sigmoid.

        Returns:
            the output, then every map of `features`, float32, channels last.
        """
        names = [self._logits if logits else self._output, *self.features]
        output, *maps = self._session.run(names, {self._input: x})
        return (output, *(np.ascontiguousarray(np.moveaxis(item, 1, -1)) for item in maps))

    def feature_maps(self, sample: NDArray[np.float32]) -> tuple[TeacherMap, ...]:
        """Intermediate tensors in graph order that can serve as feature maps.

        Taken are the outputs of convolution, pooling and dense operators and of the elementwise
        operators after them: ONNX fixes their layout to channels first.

        Args:
            sample: float32 (1, *sample_shape), to find the real sizes.
        """
        model = onnx.load(str(self._path))
        graph_outputs = {value.name for value in model.graph.output} | {self._logits}
        candidates: list[str] = []
        for node in model.graph.node:
            follows = any(name in candidates for name in node.input)
            if node.op_type in _CHANNELS_FIRST | _DENSE or (node.op_type in _ELEMENTWISE and follows):
                candidates.append(node.output[0])
        names = [name for name in candidates if name not in graph_outputs]
        if not names:
            return ()
        values = self._open(model, tuple(names)).run(names, {self._input: sample})
        maps = []
        for name, value in zip(names, values, strict=True):
            if value.ndim >= _RANK_OF_VECTORS and value.dtype == np.float32 and value.shape[0] == 1:
                maps.append(TeacherMap(name, tuple(value.shape[2:]), int(value.shape[1])))
        return tuple(maps)


def _before_final_activation(model: onnx.ModelProto) -> tuple[str, str]:
    """What the first output ends in, and the tensor before that."""
    producer = {name: node for node in model.graph.node for name in node.output}
    tensor = model.graph.output[0].name
    while (node := producer.get(tensor)) is not None and node.op_type in _PASS_THROUGH:
        tensor = node.input[0]
    if node is not None and node.op_type in {"Softmax", "Sigmoid"}:
        return node.op_type.lower(), node.input[0]
    return "linear", model.graph.output[0].name
