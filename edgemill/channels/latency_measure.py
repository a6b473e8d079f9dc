"""Step `channels.layer_latency`: every layer alone in a file, timed in the target's runtime."""

from __future__ import annotations

import gc
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from edgemill.benchmark.cores import pinned
from edgemill.channels.cost import LayerShape
from edgemill.channels.latency_steps import LayerGrid, LayerLatencySettings
from edgemill.channels.latency_table import LatencyTable, Measured
from edgemill.channels.layer_onnx import onnx_layer
from edgemill.channels.layer_tflite import input_shape, tflite_layer
from edgemill.errors import ToolchainError
from edgemill.runtimes.litert import RUNTIME as LITERT
from edgemill.runtimes.onnxruntime import PROVIDER, session_options
from edgemill.runtimes.onnxruntime import RUNTIME as ONNXRUNTIME
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.targets.spec import ActivationType, Int8Arithmetic

Call = Callable[[], Any]
Times = NDArray[np.float64]

_PASSES = 3
"""Over all layers, some seconds apart: load on the machine comes and goes for longer than one layer takes."""
_ROUNDS = 9
_FEWEST_ROUNDS = 3
_BLOCK_NS = 250_000
"""Length of one timed block: short beside a time slice of the operating system, so that most stay undisturbed."""
_POINT_NS = 30_000_000
"""Time one point may take in a pass; slow layers get fewer rounds."""
_QUANTILE = 0.25
"""Of a point's blocks: other load makes a block slower, never faster."""
_LOADED = 64
"""Layers that are loaded at once and timed in turn."""
_TINY = LayerShape("conv", 16, 16)
_COPIES = 8
_X86 = ("x86_64", "AMD64")


def run(settings: LayerLatencySettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Measure layers.

    Args:
        settings: runtime, geometries and channel counts.
        inputs: none.
        context: where to write.

    Returns:
        file `table`; facts `points`, `runtime`, `activations` (integer type that was measured, see
        `measured_arithmetic`), `call_us`, `seconds`, `disturbed` (share of the points whose slowest pass took more
        than a fifth longer than the fastest).

    Raises:
        ToolchainError: the runtime cannot run one of the layers.
    """
    started = time.monotonic()
    total = sum(len(grid.points()) for grid in settings.layers)
    done = 0
    passes: list[list[Times]] = [[] for _ in settings.layers]
    empty: list[float] = []
    with pinned(settings.threads):
        for _ in range(_PASSES):
            empty.append(_call_us(settings))
            for index, grid in enumerate(settings.layers):
                context.report(done / max(1, total * _PASSES), f"layer shape {done} of {total * _PASSES}")
                passes[index].append(_measure(grid, settings))
                done += len(grid.points())
    call_us = min(empty)
    measured = [_together(grid, found, call_us) for grid, found in zip(settings.layers, passes, strict=True)]
    runtime = ONNXRUNTIME if settings.runtime == ONNXRUNTIME.name else LITERT
    table = LatencyTable(measured, f"{runtime.name} {runtime.version()}", call_us)
    table.write(context.out / "table.json")
    spread = np.concatenate([layer.spread.ravel() for layer in measured]) if measured else np.zeros(0)
    facts = {
        "points": total,
        "runtime": table.runtime,
        "activations": str(measured_arithmetic(settings.int8).activations) if runtime is ONNXRUNTIME else "int8",
        "call_us": call_us,
        "seconds": time.monotonic() - started,
        "disturbed": float((spread > 0.2).mean()) if spread.size else 0.0,
    }
    return Outputs({"table": OutputFile(context.out / "table.json", "latency_table")}, facts)


def _measure(grid: LayerGrid, settings: LayerLatencySettings) -> Times:
    """Microseconds of one call at every point, in the order of the points."""
    points = grid.points()
    times: list[float] = []
    for start in range(0, len(points), _LOADED):
        shapes = [grid.geometry.shape(*point) for point in points[start : start + _LOADED]]
        times += timed([prepare_layer(shape, settings) for shape in shapes])
    return np.array(times)


def _together(grid: LayerGrid, passes: list[Times], call_us: float) -> Measured:
    """The fastest pass of every point counts: what else runs on the machine makes a pass slower, never faster."""
    size = (len(grid.inputs), max(1, len(grid.outputs)))
    low, high = np.min(passes, axis=0), np.max(passes, axis=0)
    return Measured(grid, np.maximum(low - call_us, 0.0).reshape(size), ((high - low) / high).reshape(size))


def timed(calls: Sequence[Call]) -> list[float]:
    """Time calls in turn, so that other load on the machine meets all alike.

    Returns:
        of each call the microseconds, the first quartile of its blocks.
    """
    runs, rounds = [], _ROUNDS
    for call in calls:
        _block(call, 3)
        once = _block(call, 3)
        runs.append(int(np.clip(_BLOCK_NS / max(once, 1.0), 1, 500)))
        rounds = min(rounds, max(_FEWEST_ROUNDS, int(_POINT_NS / (once * runs[-1]))))
    times = np.empty((len(calls), rounds))
    collecting = gc.isenabled()
    gc.disable()
    try:
        for index in range(rounds):
            for number, call in enumerate(calls):
                call()
                times[number, index] = _block(call, runs[number])
    finally:
        if collecting:
            gc.enable()
    found: list[float] = (np.quantile(times, _QUANTILE, axis=1) / 1e3).tolist()
    return found


def _block(call: Call, runs: int) -> float:
    """Nanoseconds of one call, the mean of `runs` consecutive ones."""
    begin = time.perf_counter_ns()
    for _ in range(runs):
        call()
    return (time.perf_counter_ns() - begin) / runs


def prepare_layer(shape: LayerShape, settings: LayerLatencySettings, copies: int = 1) -> Call:
    """One inference of a file with `copies` of one layer as a call without arguments.

    Raises:
        ToolchainError: the runtime cannot load or run it.
    """
    try:
        if settings.runtime == LITERT.name:
            return _litert(tflite_layer(shape, copies), settings.threads)
        return _onnxruntime(shape, settings, copies)
    except Exception as error:  # neither runtime's exceptions have a common base
        raise ToolchainError(
            "A layer cannot be run alone to measure it.", where=str(shape), got=str(error)[:500]
        ) from error


def _litert(content: bytes, threads: int) -> Call:
    interpreter = Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]
    interpreter.set_tensor(entry["index"], np.zeros(entry["shape"], np.int8))
    interpreter.invoke()
    call: Call = interpreter.invoke
    return call


def _onnxruntime(shape: LayerShape, settings: LayerLatencySettings, copies: int) -> Call:
    arithmetic = measured_arithmetic(settings.int8)
    content = onnx_layer(shape, arithmetic, copies)
    session = onnxruntime.InferenceSession(content, session_options(settings.threads), providers=[PROVIDER])
    unsigned = arithmetic.activations is ActivationType.UINT8
    return bound_call(session, {"x": np.zeros(input_shape(shape), np.uint8 if unsigned else np.int8)})


def measured_arithmetic(wanted: Int8Arithmetic) -> Int8Arithmetic:
    """What onnxruntime measures on this machine for a target's integer types.

    On x86 it has no quantized kernels for int8 activations and would run such a layer in float, so that an ARM
    target's layers are measured with uint8 there: the nearest proxy.
    """
    if platform.machine() in _X86 and wanted.activations is ActivationType.INT8:
        return wanted.model_copy(update={"activations": ActivationType.UINT8})
    return wanted


def bound_call(session: onnxruntime.InferenceSession, feed: Mapping[str, NDArray[Any]]) -> Call:
    """One inference with inputs and outputs in memory that is bound once, as a call without arguments."""
    answers = session.run(None, dict(feed))
    binding = session.io_binding()
    held = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in (*feed.values(), *answers)]
    names = [*feed, *(entry.name for entry in session.get_outputs())]
    for index, (name, value) in enumerate(zip(names, held, strict=True)):
        if index < len(feed):
            binding.bind_ortvalue_input(name, value)
        else:
            binding.bind_ortvalue_output(name, value)
    # The public method adds checks in Python that take as long as a small layer.
    run, bound = session._sess.run_with_iobinding, binding._iobinding

    def call() -> None:
        run(bound, None)

    call.__dict__["held"] = (session, binding, held)
    return call


def _call_us(settings: LayerLatencySettings) -> float:
    """What a call costs before its first layer: of a tiny layer, less what each further one adds."""
    one, many = timed([prepare_layer(_TINY, settings), prepare_layer(_TINY, settings, _COPIES)])
    each = max(0.0, many - one) / (_COPIES - 1)
    return max(0.0, one - each)
