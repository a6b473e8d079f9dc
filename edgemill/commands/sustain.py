"""`edgemill sustain`: a model under load for minutes on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgemill.console import guarded, print_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgemill.artifact import TensorSpec

_SUFFIXES = {".onnx": "onnx", ".tflite": "tflite"}
_SEED = 0


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="samples (.npy); without it, seeded random numbers")
@click.option("--minutes", type=click.FloatRange(0, 240, min_open=True), default=3.0, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True)
@click.option("--target", "target_name", help="what the figures are for; without it, this machine")
@click.option("--chart", type=click.Path(path_type=Path), help="write a picture (SVG)")
@click.option("--series", type=click.Path(path_type=Path), help="write the values of every second (.npz)")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@guarded
def sustain(
    model: Path,
    data: Path | None,
    minutes: float,
    threads: int,
    batch: int,
    target_name: str | None,
    chart: Path | None,
    series: Path | None,
    as_json: bool,
) -> None:
    """Run MODEL without pause and record latency, temperature, clock and energy.

    Says how fast it is in the first minute and once the machine is warm, and when it began to throttle.
    Ctrl-C ends the run early and keeps what was measured.
    """
    from edgemill.benchmark import SustainedSettings
    from edgemill.benchmark.slots import exclusive
    from edgemill.benchmark.sustained import measure
    from edgemill.benchmark.sustained_series import Recording, save_series
    from edgemill.errors import RecipeError
    from edgemill.report.sustained_chart import sustained_svg
    from edgemill.runtimes import open_model
    from edgemill.targets import load_target

    kind = _kind(model)
    for path in filter(None, (chart, series)):
        _check_folder(path)
    target = load_target(target_name) if target_name else None
    settings = SustainedSettings(minutes=minutes, threads=threads, batch=batch, target=target)
    spec = open_model(model, kind, threads).signature.inputs[0]
    x = random_input(spec, batch) if data is None else read_input(data, spec, batch)
    recording = Recording([])
    with exclusive(_report):
        facts = measure(model, kind, x, settings, recording, _report, keep_when_interrupted=True)
    if sys.stderr.isatty():
        click.echo("\r\033[K", nl=False, err=True)
    facts["input"] = f"random, seed {_SEED}" if data is None else str(data)
    print_json(facts) if as_json else click.echo(describe(facts))
    try:
        if series is not None:
            save_series(series, recording)
        if chart is not None:
            chart.write_text(sustained_svg(recording.columns(), facts, standalone=True), encoding="utf-8")
    except OSError as error:
        raise RecipeError("A file of the run cannot be written.", where=error.filename, got=error.strerror) from error


def random_input(spec: TensorSpec, batch: int) -> NDArray[np.float32]:
    """Seeded random numbers that a model's input can hold.

    Args:
        spec: the input.
        batch: samples; a model with a batch of its own keeps that.

    Returns:
        float32 (batch, ...): standard normal for a floating-point input, over the whole range of a
        quantized one, 0 or 1 for other integers.

    Raises:
        RecipeError: a size other than the batch is free.
    """
    import numpy as np

    from edgemill.errors import RecipeError

    sizes = [size for size in spec.shape[1:] if size is not None]
    if len(sizes) < len(spec.shape) - 1:
        raise RecipeError(
            "The model's input has a free size besides the batch, so its shape must come from data.",
            where=f"input {spec.name}",
            got=str(spec.shape),
            remedy="give samples with --data FILE.npy",
        )
    shape = ((spec.shape[0] or batch) if spec.shape else batch, *sizes)
    rng = np.random.default_rng(_SEED)
    dtype = np.dtype(spec.dtype)
    if np.issubdtype(dtype, np.floating):
        return rng.standard_normal(shape, dtype=np.float32)
    if spec.scale is None:
        return rng.integers(0, 2, shape).astype(np.float32)
    limits = np.iinfo(dtype)
    low, high = ((limit - (spec.zero_point or 0)) * spec.scale for limit in (int(limits.min), int(limits.max)))
    quantized: NDArray[np.float32] = rng.uniform(low, high, shape).astype(np.float32)
    return quantized


def read_input(path: Path, spec: TensorSpec, batch: int) -> NDArray[np.float32]:
    """The first samples of a .npy file.

    Args:
        path: numbers, (N, ...), as the model takes them.
        spec: the model's input; the runtime checks that the shape fits it.
        batch: samples; a model with a batch of its own takes that many.

    Returns:
        float32 (batch, ...).

    Raises:
        DataError: the file cannot be read, holds no numbers, or too few samples.
    """
    import numpy as np

    from edgemill.errors import DataError

    try:
        stored = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            "The samples cannot be read.", where=str(path), expected="a .npy file", got=str(error)
        ) from error
    wanted = (spec.shape[0] or batch) if spec.shape else batch
    if not isinstance(stored, np.ndarray) or stored.dtype.kind not in "fiub" or stored.ndim == 0:
        raise DataError("The file is no array of numbers.", where=str(path), expected="a .npy file, (N, ...)")
    if len(stored) < wanted:
        raise DataError(
            "There are fewer samples than one inference takes.", where=str(path), expected=f"{wanted}", got=len(stored)
        )
    samples: NDArray[np.float32] = stored[:wanted].astype(np.float32)
    return samples


def describe(facts: dict[str, Any]) -> str:
    """The facts of a run for the terminal."""
    lines = []
    for key, title in (("first_minute", "first minute"), ("steady_state", "steady state")):
        period = facts[key]
        lines.append(f"{title + ':':16}{_period(period) if period else 'not stated: ' + facts[f'{key}_missing']}")
    if facts["throttle_onset_s"] is not None:
        lines.append(
            f"{'throttling:':16}from {facts['throttle_onset_s']:.0f} s; {'; '.join(facts['throttle_evidence'])}"
        )
    elif facts["slowdown"]:
        slow = facts["slowdown"]
        lines.append(
            f"{'throttling:':16}none, but slower from {slow['onset_s']:.0f} s on ({slow['before_ms']:.3g} to "
            f"{slow['after_ms']:.3g} ms); {'; '.join(facts['throttle_evidence'])}"
        )
    else:
        lines.append(f"{'throttling:':16}none")
    if "energy_estimate_mj" in facts:
        lines.append(f"{'energy:':16}about {facts['energy_estimate_mj']:.3g} mJ, {facts['energy_estimate_source']}")
    elif "energy_source" in facts:
        lines.append(f"{'energy:':16}{facts['energy_source']} ({facts['energy_scope']})")
    for name, reason in facts["sensors_missing"].items():
        lines.append(f"{'no ' + name + ':':16}{reason}")
    if "energy_source" not in facts:
        lines.append(f"{'no meter:':16}edgemill doctor says why")
    lines.append(
        f"{'times:':16}{facts['source']}, {facts['minutes']:.2f} minutes, {facts['threads']} thread(s), "
        f"input {facts['input']}{', ended by Ctrl-C' if facts['interrupted'] else ''}"
    )
    return "\n".join(lines)


def _period(period: dict[str, Any]) -> str:
    parts = [f"median {period['p50_ms']:.3g} ms, 95 % below {period['p95_ms']:.3g} ms"]
    for key, unit in (("temperature_c", "°C"), ("mhz", "MHz"), ("energy_mj", "mJ"), ("power_w", "W")):
        if period[key] is not None:
            parts.append(f"{period[key]:.4g} {unit}")
    if period["taken"]:
        parts.append(f"{period['taken']:.0%} of the time taken by other programs")
    if not period.get("settled", True):
        parts.append("not settled")
    return ", ".join(parts)


def _kind(model: Path) -> str:
    from edgemill.errors import RecipeError

    if model.suffix not in _SUFFIXES:
        raise RecipeError(
            "The model's format is not known by its name.", where=str(model), expected=", ".join(_SUFFIXES)
        )
    if not model.is_file():
        raise RecipeError("There is no such model file.", where=str(model))
    return _SUFFIXES[model.suffix]


def _check_folder(path: Path) -> None:
    from edgemill.errors import RecipeError

    if not path.absolute().parent.is_dir() or path.is_dir():
        raise RecipeError("This file cannot be written.", where=str(path), expected="a file name in an existing folder")


def _report(fraction: float | None, message: str) -> None:
    if sys.stderr.isatty():
        share = "" if fraction is None else f"{fraction:4.0%} "
        click.echo(f"\r\033[K{share}{message}", nl=False, err=True)
    elif fraction is None:
        click.echo(message, err=True)
