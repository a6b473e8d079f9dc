"""Memory and cold start of a model: medians over fresh processes (see start.py)."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgemill.artifact import Frozen
from edgemill.errors import ToolchainError, error_from_dict

_TIME_LIMIT_S = 600.0
_SCRIPT = Path(__file__).with_name("start.py")
_NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"


class ColdStart(Frozen):
    """What it takes until a fresh process answers.

    Attributes:
        cold_start_ms: from spawning the process to its first answer: interpreter, numpy, runtime, model.
        load_ms: from the file to a loaded model.
        first_inference_ms: the first call, in which runtimes allocate and pack weights.
    """

    cold_start_ms: float
    load_ms: float
    first_inference_ms: float


class Memory(Frozen):
    """What a model takes of a process.

    Attributes:
        peak_rss_bytes: highest resident size while loading and running, less that of the process
            with the runtime in memory.
        arena_bytes: working memory of an inference as the runtime counts it; None where it does not
            tell.
        arena_source: who says so, or why it does not.
    """

    peak_rss_bytes: int
    arena_bytes: int | None
    arena_source: str


def cold_start(path: Path, kind: str, x: Path, threads: int) -> ColdStart:
    """Start one process.

    Args:
        path: the model file.
        kind: onnx or tflite.
        x: .npy with one batch, float32.
        threads: threads of the runtime.

    Raises:
        ToolchainError: the process failed.
    """
    answers, _ = _ask("cold", path, kind, x, threads)
    return ColdStart.model_validate(answers[0])


def memory(path: Path, kind: str, x: Path, threads: int) -> Memory:
    """Measure in one process.

    Args and raises: as `cold_start`.
    """
    answers, status = _ask("memory", path, kind, x, threads)
    silent = {"arena_bytes": None, "arena_source": f"the runtime broke off (exit status {status})"}
    return Memory.model_validate(answers[0] | (answers[1] if len(answers) > 1 else silent))


def typical_start(starts: Sequence[ColdStart]) -> ColdStart:
    """Medians over processes."""
    return ColdStart(
        cold_start_ms=statistics.median(item.cold_start_ms for item in starts),
        load_ms=statistics.median(item.load_ms for item in starts),
        first_inference_ms=statistics.median(item.first_inference_ms for item in starts),
    )


def _ask(what: str, path: Path, kind: str, x: Path, threads: int) -> tuple[list[dict[str, Any]], int]:
    """Lines that start.py prints, and its exit status."""
    package_root = str(Path(__file__).parents[2])
    search = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    # A device has its modules compiled; with this variable every start would compile them again.
    environment = {name: value for name, value in os.environ.items() if name != _NO_BYTECODE}
    command = [sys.executable, "-P", str(_SCRIPT), what, kind, str(path), str(threads), str(x)]
    try:
        done = subprocess.run(
            [*command, str(time.monotonic_ns())],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIME_LIMIT_S,
            check=False,
            env=environment | {"PYTHONPATH": search},
        )
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(
            "The process that measures a model's start did not end.",
            where=str(path),
            expected=f"at most {_TIME_LIMIT_S:.0f} s",
        ) from error
    answers: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not answers:
        raise ToolchainError(
            "The process that measures a model's start died.",
            where=str(path),
            got=f"exit status {done.returncode}: {' '.join(done.stderr.split())[-300:]}",
        )
    if "what" in answers[0]:
        raise error_from_dict(answers[0])
    return answers, done.returncode
