"""Working memory as the runtime itself counts it.

Called in a process of its own: it speaks to the runtimes below their Python interface, and a runtime
that breaks off then takes nothing else with it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.runtimes import open_model
from edgemill.runtimes.convert import to_stored

Arena = tuple[int | None, str]
"""Bytes, or None where the runtime does not tell; and who says so, or why not."""

_API_VERSION = 23
_RUNS = 2  # the second one takes the memory plan that the first one left
_FUNCTIONS = {
    "GetErrorMessage": 2,
    "CreateEnv": 3,
    "CreateSession": 7,
    "Run": 9,
    "CreateSessionOptions": 10,
    "SetIntraOpNumThreads": 24,
    "SetInterOpNumThreads": 25,
    "CreateTensorWithDataAsOrtValue": 49,
    "CreateCpuMemoryInfo": 69,
    "CreateAllocator": 131,
    "GetKeyValue": 297,
    "AllocatorGetStats": 319,
}
"""Places in the struct OrtApi of onnxruntime_c_api.h, version 23. Later versions only append to it."""
_WARNING, _ARENA_ALLOCATOR, _DEFAULT_MEMORY = 3, 1, 0
_ELEMENT_TYPES = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "uint16": 4,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "float16": 10,
    "float64": 11,
}
_P = ctypes.c_void_p


def arena_of(kind: str, path: Path, threads: int, x: NDArray[np.float32]) -> Arena:
    """Working memory of a model that answers one batch.

    Args:
        kind: onnx or tflite.
        path: the model file.
        threads: threads of the runtime.
        x: one batch, float32 (N, *sample_shape).

    Returns:
        Bytes of activations and scratch at the peak of an inference, weights not included.
        onnx: highest use of the session's CPU arena less its use after loading (`AllocatorGetStats`
        of the C interface, onnxruntime 1.23 and later); at most that, where loading took more than
        running. tflite: what the arena planner of LiteRT gave to tensors and scratch when the graph
        runs in the built-in kernels; of its own workspace XNNPACK tells nothing.

    Raises:
        ToolchainError: the model cannot be loaded.
        OSError: the C library of the runtime cannot be loaded.
    """
    readers = {"onnx": _onnxruntime, "tflite": _litert}
    return readers[kind](path, threads, x) if kind in readers else (None, f"the runtime of {kind} files does not tell")


def _onnxruntime(path: Path, threads: int, x: NDArray[np.float32]) -> Arena:
    import onnxruntime

    libraries = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.*"))
    if not libraries:
        return None, "this build of onnxruntime has no C library that can be asked"
    signature = open_model(path, "onnx", threads).signature
    entry, answer = signature.inputs[0], signature.outputs[0]
    base = ctypes.CDLL(str(libraries[0])).OrtGetApiBase
    base.restype = ctypes.POINTER(_P)
    table = ctypes.CFUNCTYPE(_P, ctypes.c_uint32)(base()[0] or 0)(_API_VERSION)
    if table is None:
        return None, f"onnxruntime {onnxruntime.__version__} does not tell; 1.{_API_VERSION} and later do"
    used = _session_peak(_OrtApi(table), path, threads, entry.name, answer.name, to_stored(x, entry))
    return used, "onnxruntime AllocatorGetStats"


class _OrtApi:
    """Calls into the C interface; every function that can fail returns a status."""

    def __init__(self, table: int) -> None:
        self._table = ctypes.cast(table, ctypes.POINTER(_P))

    def address(self, name: str) -> int:
        return self._table[_FUNCTIONS[name]] or 0

    def call(self, name: str, *values: Any) -> None:
        """Call with arguments that are ctypes values already."""
        status = ctypes.CFUNCTYPE(_P, *map(type, values))(self.address(name))(*values)
        if status is not None:
            text = ctypes.CFUNCTYPE(ctypes.c_char_p, _P)(self.address("GetErrorMessage"))(status)
            raise OSError(f"{name}: {(text or b'').decode(errors='replace')[:300]}")

    def make(self, name: str, *values: Any) -> Any:
        """Call a function whose last parameter is where the new object goes."""
        made = _P()
        self.call(name, *values, _P(ctypes.addressof(made)))
        return made

    def statistic(self, allocator: Any, key: bytes) -> int | None:
        """One number of `AllocatorGetStats`; None where this allocator does not keep it."""
        read = ctypes.CFUNCTYPE(ctypes.c_char_p, _P, ctypes.c_char_p)(self.address("GetKeyValue"))
        text = read(self.make("AllocatorGetStats", allocator), key)
        return None if text is None else int(text)


def _session_peak(
    api: _OrtApi, path: Path, threads: int, name: str, answer: str, stored: NDArray[np.generic]
) -> int | None:
    """Load and run through the C interface; the objects live until the process ends."""
    env = api.make("CreateEnv", ctypes.c_int(_WARNING), ctypes.c_char_p(b"arena"))
    options = api.make("CreateSessionOptions")
    api.call("SetIntraOpNumThreads", options, ctypes.c_int(threads))
    api.call("SetInterOpNumThreads", options, ctypes.c_int(1))
    session = api.make("CreateSession", env, ctypes.c_char_p(bytes(path)), options)
    memory = api.make("CreateCpuMemoryInfo", ctypes.c_int(_ARENA_ALLOCATOR), ctypes.c_int(_DEFAULT_MEMORY))
    shape = (ctypes.c_int64 * stored.ndim)(*stored.shape)
    value = api.make(
        "CreateTensorWithDataAsOrtValue",
        *(memory, _P(stored.ctypes.data), ctypes.c_size_t(stored.nbytes)),
        *(_P(ctypes.addressof(shape)), ctypes.c_size_t(stored.ndim), ctypes.c_int(_ELEMENT_TYPES[stored.dtype.name])),
    )
    names, answers = (ctypes.c_char_p * 1)(name.encode()), (ctypes.c_char_p * 1)(answer.encode())
    values = (_P * 1)(value)
    allocator = api.make("CreateAllocator", session, memory)
    loaded = api.statistic(allocator, b"InUse")
    for _ in range(_RUNS):
        outputs = (_P * 1)()
        api.call(
            "Run",
            *(session, _P(None), _P(ctypes.addressof(names)), _P(ctypes.addressof(values)), ctypes.c_size_t(1)),
            *(_P(ctypes.addressof(answers)), ctypes.c_size_t(1), _P(ctypes.addressof(outputs))),
        )
    highest = api.statistic(allocator, b"MaxInUse")
    return None if loaded is None or highest is None else highest - loaded


def _litert(path: Path, threads: int, x: NDArray[np.float32]) -> Arena:
    from ai_edge_litert.interpreter import OpResolverType

    from edgemill.runtimes.litert import LiteRtModel

    model = LiteRtModel(path, threads, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    model.prepare(x)()
    interpreter = model.interpreter
    operators = interpreter._get_ops_details()
    made = {int(index) for operator in operators for index in operator["outputs"]}
    made |= {int(detail["index"]) for detail in interpreter.get_input_details()}
    read = {int(index) for operator in operators for index in operator["inputs"]} - made  # weights
    spans = []
    for detail in interpreter.get_tensor_details():
        index = int(detail["index"])
        if index not in read and (span := _span(interpreter.tensor(index))) is not None:
            spans.append(span)
    return _covered(spans), "arena planner of LiteRT, built-in kernels"


def _span(view: Callable[[], NDArray[np.generic]]) -> tuple[int, int] | None:
    """First and last address of a tensor, None where it has no memory."""
    try:
        tensor = view()
    except ValueError:
        return None
    return tensor.ctypes.data, tensor.ctypes.data + tensor.nbytes


def _covered(spans: list[tuple[int, int]]) -> int:
    """Bytes in the union of address ranges: what shares memory counts once."""
    total, reached = 0, 0
    for start, end in sorted(spans):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total
