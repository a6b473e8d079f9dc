"""Run a TFLite file under LiteRT's profiler and print its summary; a process of its own.

The Python interpreter of LiteRT has no profiler, but `libLiteRt.so` of the same package has one behind its
C interface (litert/c/litert_profiler.h, litert_compiled_model.h, litert_opaque_options.h of LiteRT 2). It is
called through ctypes, so a change of that interface may end this process; that must not be the caller's.

Prints one summary for each batch of inferences, a form feed between them.

Usage: python -P profile_litert_child.py MODEL INPUT.npy THREADS RUNS BATCHES
"""

from __future__ import annotations

import ctypes
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

SEPARATOR = "\f"
_CPU = 1
_WRITE = 1
_WARM_UP = 5
_TYPE_BYTES = 512
"""More than LiteRtRankedTensorType has: element type, rank and flags, then up to 8 dimensions, all 32-bit."""
_RANK, _DIMENSIONS = 1, 2
_RANK_BITS = 0x7F


class _Library:
    """`libLiteRt.so`; every call is checked."""

    def __init__(self) -> None:
        package = find_spec("ai_edge_litert")
        if package is None or package.origin is None:
            raise RuntimeError("ai-edge-litert is not installed")
        found = sorted(Path(package.origin).parent.glob("libLiteRt.*"))
        if not found:
            raise RuntimeError("ai-edge-litert has no libLiteRt here")
        self._library = ctypes.CDLL(str(found[0]))
        self._c = ctypes.CDLL(None)
        self._c.strdup.restype = ctypes.c_void_p

    def call(self, name: str, *arguments: Any) -> None:
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise RuntimeError(f"this ai-edge-litert has no {name}") from None
        function.restype = ctypes.c_int
        status = function(*arguments)
        if status != 0:
            raise RuntimeError(f"{name} answered {status}")

    def make(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        """Call a function whose last argument receives a handle."""
        handle = ctypes.c_void_p()
        self.call(name, *arguments, ctypes.byref(handle))
        return handle

    def add_option(self, options: ctypes.c_void_p, group: str, text: str) -> None:
        payload = ctypes.c_void_p(self._c.strdup(text.encode()))
        free = ctypes.cast(self._c.free, ctypes.c_void_p)
        self.call(
            "LiteRtAddOpaqueOptions", options, self.make("LiteRtCreateOpaqueOptions", group.encode(), payload, free)
        )


def main(arguments: list[str]) -> int:
    """Print LiteRT's summaries of the profile, or one line of what went wrong."""
    path, input_file, *numbers = arguments
    threads, runs, count = map(int, numbers)
    try:
        found = summaries(path, np.load(input_file, allow_pickle=False), threads, runs, count)
        print(SEPARATOR.join(found))  # noqa: T201
    except (RuntimeError, OSError, ValueError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


def summaries(path: str, x: np.ndarray[Any, Any], threads: int, runs: int, count: int) -> list[str]:
    """Texts of the profiles of `count` batches of `runs` inferences.

    Args:
        path: of the TFLite file.
        x: what the model's input takes, in its own type and shape.
        threads: of XNNPACK.
        runs: profiled inferences of one batch.
        count: batches.

    Raises:
        RuntimeError: LiteRT refused a call.
    """
    library = _Library()
    environment = library.make("LiteRtCreateEnvironment", ctypes.c_int(0), None)
    model = library.make("LiteRtCreateModelFromFile", environment, path.encode())
    options = library.make("LiteRtCreateOptions")
    library.call("LiteRtSetOptionsHardwareAccelerators", options, ctypes.c_int(_CPU))
    library.add_option(options, "runtime_options_string", "enable_profiling = true\n")
    library.add_option(options, "xnnpack", f"num_threads = {threads}\n")
    compiled = library.make("LiteRtCreateCompiledModel", environment, model, options)
    signature = library.make("LiteRtGetModelSignature", model, ctypes.c_size_t(0))
    count_of_outputs = ctypes.c_size_t()
    library.call("LiteRtGetNumSignatureOutputs", signature, ctypes.byref(count_of_outputs))
    outputs = count_of_outputs.value
    entry = _buffer(library, environment, compiled, signature, "Input", x.shape)
    # Asking for the layouts is what makes LiteRT size the outputs for the resized input.
    layouts, update = ctypes.create_string_buffer(outputs * _TYPE_BYTES), ctypes.c_bool(True)
    one, zero = ctypes.c_size_t(1), ctypes.c_size_t(0)
    library.call("LiteRtGetCompiledModelOutputTensorLayouts", compiled, zero, ctypes.c_size_t(outputs), layouts, update)
    made = [_buffer(library, environment, compiled, signature, "Output", x.shape, index) for index in range(outputs)]
    address = ctypes.c_void_p()
    library.call("LiteRtLockTensorBuffer", entry, ctypes.byref(address), ctypes.c_int(_WRITE))
    ctypes.memmove(address, x.ctypes.data, x.nbytes)
    library.call("LiteRtUnlockTensorBuffer", entry)
    entries, answers = (ctypes.c_void_p * 1)(entry), (ctypes.c_void_p * outputs)(*made)

    def infer(count: int) -> None:
        for _ in range(count):
            library.call("LiteRtRunCompiledModel", compiled, zero, one, entries, count_of_outputs, answers)

    infer(_WARM_UP)
    profiler = library.make("LiteRtCompiledModelGetProfiler", compiled)
    found = []
    for _ in range(count):
        library.call("LiteRtResetProfiler", profiler)
        library.call("LiteRtStartProfiler", profiler)
        infer(runs)
        library.call("LiteRtStopProfiler", profiler)
        text = library.make("LiteRtGetProfileSummary", profiler, compiled)
        found.append(ctypes.string_at(text.value or b"").decode("utf-8", "replace"))
    return found


def _buffer(
    library: _Library,
    environment: ctypes.c_void_p,
    compiled: ctypes.c_void_p,
    signature: ctypes.c_void_p,
    side: str,
    shape: tuple[int, ...],
    position: int = 0,
) -> ctypes.c_void_p:
    """A tensor buffer for an input or output; a free batch becomes that of the samples."""
    first, index = ctypes.c_size_t(0), ctypes.c_size_t(position)
    tensor = library.make(f"LiteRtGetSignature{side}TensorByIndex", signature, index)
    kind = ctypes.create_string_buffer(_TYPE_BYTES)
    library.call("LiteRtGetRankedTensorType", tensor, kind)
    words = (ctypes.c_int32 * (_TYPE_BYTES // 4)).from_buffer(kind)
    rank = words[_RANK] & _RANK_BITS
    for axis in range(rank):
        if words[_DIMENSIONS + axis] < 0:
            words[_DIMENSIONS + axis] = shape[axis] if side == "Input" or axis == 0 else 1
    sizes = tuple(words[_DIMENSIONS : _DIMENSIONS + rank])
    if side == "Input" and sizes != shape:
        raise RuntimeError(f"the model's input has the shape {sizes}, the samples {shape}")
    if side == "Input":
        dimensions = (ctypes.c_int * rank)(*sizes)
        library.call("LiteRtCompiledModelResizeInputTensor", compiled, first, first, dimensions, ctypes.c_size_t(rank))
    requirements = library.make(f"LiteRtGetCompiledModel{side}BufferRequirements", compiled, first, index)
    return library.make("LiteRtCreateManagedTensorBufferFromRequirements", environment, kind, requirements)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
