"""Step body: one model under load for minutes. Heat, throttling and energy, window by window."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.benchmark import SustainedSettings
from edgemill.benchmark.cores import Taken, pinned
from edgemill.benchmark.energy.find import choose, find_meters
from edgemill.benchmark.energy.meter import EnergyMeter
from edgemill.benchmark.heat import Sensors, find_sensors
from edgemill.benchmark.host import fingerprint
from edgemill.benchmark.sustained_series import Recording, Window, save_series
from edgemill.benchmark.sustained_summary import summarize
from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import DataError, ToolchainError
from edgemill.runtimes import open_model, runtime_of
from edgemill.step import InputFile, OutputFile, Outputs, StepContext

Call = Callable[[], Any]
Report = Callable[[float | None, str], None]

_IDLE_S = 5.0
_UPDATES_IDLE = 10
_SECONDS = 60.0


def run(settings: SustainedSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Run a model for the set time.

    Inputs:
        variant: onnx or tflite.
        data: dataset; the batch is taken from its validation split.

    Outputs:
        series: .npz with one array for every attribute of `Window`, float64 (windows,).

    Facts: those of `summarize`.

    Raises:
        ToolchainError: the file cannot be loaded.
        DataError: there are fewer validation samples than the batch takes.
    """
    x = Dataset(inputs["data"].path).features(SplitName.VALIDATION, 0, settings.batch)
    if len(x) < settings.batch:
        raise DataError(
            "There are fewer validation samples than one batch of the sustained run takes.",
            where="benchmark.batch",
            expected=f"at most {len(x)}",
            got=settings.batch,
        )
    variant = inputs["variant"]
    recording = Recording([])
    facts = measure(variant.path, variant.artifact.kind, x, settings, recording, context.report)
    path = context.out / "series.npz"
    save_series(path, recording)
    return Outputs(files={"series": OutputFile(path, kind="series")}, facts=facts)


def measure(
    path: Path,
    kind: str,
    x: NDArray[np.float32],
    settings: SustainedSettings,
    recording: Recording,
    report: Report,
    root: Path = Path("/"),
    *,
    keep_when_interrupted: bool = False,
) -> dict[str, Any]:
    """Load a model, run it for the set time, and sum up.

    Args:
        path: the model file.
        kind: onnx or tflite.
        x: the batch, float32 (batch, *sample_shape).
        settings: how long, on how many threads, for which target.
        recording: empty; filled while the model runs.
        report: told of progress after every window.
        root: folder in which `sys` and `proc` are.
        keep_when_interrupted: end the run at Ctrl-C and sum up what there is, if there is anything.

    Raises:
        ToolchainError: the file cannot be loaded.
    """
    found = find_meters(root)
    meter = choose(found)
    missing = {item.name: item.reason for item in found.unusable}
    interrupted = False
    try:
        if meter is not None:
            _start(meter, recording)  # its thread must not be pinned to the measured core
        with pinned(settings.threads) as pin:
            sensors = find_sensors(root, pin.cores)
            call = open_model(path, kind, settings.threads).prepare(x)
            try:
                if meter is not None and recording.meter_error is None:
                    _measure_idle(meter, recording, report)
                record(
                    call, settings.minutes * _SECONDS, settings.window_s, sensors, meter, recording, report, pin.cores
                )
            except KeyboardInterrupt:
                if not keep_when_interrupted or not recording.windows:
                    raise
                interrupted = True
    finally:
        if meter is not None:
            meter.close()
    runtime = runtime_of(kind)
    return summarize(recording, sensors, meter, settings) | {
        "interrupted": interrupted,
        "meters_missing": missing,
        "pinned_cores": pin.cores,
        "host": fingerprint(),
        "runtime": runtime.name,
        "runtime_version": runtime.version(),
    }


def record(
    call: Call,
    seconds: float,
    window_s: float,
    sensors: Sensors,
    meter: EnergyMeter | None,
    recording: Recording,
    report: Report,
    cores: list[int] | None = None,
) -> None:
    """Call without pause for some seconds; sensors are read between windows.

    Args:
        call: one inference.
        seconds: how long.
        window_s: length of a window; it ends with the first call that ends later.
        sensors: of heat.
        meter: of energy; it is given up when it fails, and the run goes on.
        recording: takes the windows.
        report: told of progress.
        cores: that the calls run on; None for all.
    """
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        begin = time.perf_counter()
        joules, taken = _joules(meter, recording), Taken.now(cores)
        while (start := time.perf_counter()) - begin < seconds:
            latencies = _window(call, min(window_s, seconds - (start - begin)))
            end = time.perf_counter()
            joules_now, taken_now = _joules(meter, recording), Taken.now(cores)
            p50, p95 = np.percentile(latencies, (50, 95))
            window = Window(
                start_s=start - begin,
                length_s=end - start,
                calls=len(latencies),
                p50_ms=float(p50) / 1e6,
                p95_ms=float(p95) / 1e6,
                temperature_c=sensors.temperature_c(),
                mhz=sensors.mhz(),
                joules=joules_now - joules,
                taken=_share(taken_now.since(taken), (end - start) * len(cores or [0])),
            )
            joules, taken = joules_now, taken_now
            recording.windows.append(window)
            report(min(1.0, (end - begin) / seconds), _line(window))
    finally:
        if collecting:
            gc.enable()


def _window(call: Call, seconds: float) -> list[int]:
    clock = time.perf_counter_ns
    latencies: list[int] = []
    before = clock()
    end = before + int(seconds * 1e9)
    while True:
        call()
        now = clock()
        latencies.append(now - before)
        if now >= end:
            return latencies
        before = now


def _start(meter: EnergyMeter, recording: Recording) -> None:
    try:
        meter.read()
    except ToolchainError as error:
        recording.meter_error = _say(meter, error)


def _measure_idle(meter: EnergyMeter, recording: Recording, report: Report) -> None:
    seconds = max(_IDLE_S, _UPDATES_IDLE * meter.update_s)
    report(0.0, f"idle power for {seconds:.0f} s")
    try:
        start, joules = time.perf_counter(), meter.read()
        time.sleep(seconds)
        recording.idle_w = (meter.read() - joules) / (time.perf_counter() - start)
    except ToolchainError as error:
        recording.meter_error = _say(meter, error)


def _joules(meter: EnergyMeter | None, recording: Recording) -> float:
    if meter is None or recording.meter_error is not None:
        return math.nan
    try:
        return meter.read()
    except ToolchainError as error:
        recording.meter_error = _say(meter, error)
        return math.nan


def _say(meter: EnergyMeter, error: ToolchainError) -> str:
    return f"{meter.name}: {error.what} {error.got or ''}".strip()


def _share(taken: Taken, seconds: float) -> float:
    return math.nan if taken.waited_ns is None else (taken.waited_ns + taken.stolen_ns) / 1e9 / seconds


def _line(window: Window) -> str:
    parts = [f"median {window.p50_ms:.3g} ms"]
    if not math.isnan(window.temperature_c):
        parts.append(f"{window.temperature_c:.0f} °C")
    if not math.isnan(window.mhz):
        parts.append(f"{window.mhz:.0f} MHz")
    if not math.isnan(window.joules):
        parts.append(f"{window.joules / window.length_s:.2f} W")
    return ", ".join(parts)
