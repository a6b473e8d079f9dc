"""What compilers of other makers have in common: they are programs that may hang, and want one sample a call."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgemill.artifact import TensorSpec
from edgemill.errors import ToolchainError
from edgemill.runtimes.onnxruntime import OnnxRuntimeModel, session_options
from edgemill.runtimes.single import last_words


def run_program(command: list[str], folder: Path, limit_s: float, where: str) -> str:
    """Run a compiler to its end, and return what it printed.

    Args:
        command: the program and its arguments.
        folder: working folder.
        limit_s: after so many seconds it is ended.
        where: the model, for messages.

    Raises:
        ToolchainError: it cannot be started, hung, crashed, or failed; with its last words.
    """
    title = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=limit_s,
            check=False,
        )
    except OSError as error:
        raise ToolchainError(f"{title} cannot be started.", where=command[0], got=str(error)) from error
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(
            f"{title} did not come to an end and was stopped.",
            where=where,
            expected=f"at most {limit_s:.0f} s",
            got=last_words((error.output or b"").decode(errors="replace")) or "not a word",
        ) from error
    told = done.stdout.decode(errors="replace")
    if done.returncode:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
        raise ToolchainError(f"{title} failed.", where=where, got=f"{how}; last words: {last_words(told)}")
    return told


def single_sample(source: Path) -> TensorSpec:
    """The input of an ONNX model with a batch of one.

    Raises:
        ToolchainError: the model cannot be loaded, its input is no float32, or has another open size or batch.
    """
    entry = OnnxRuntimeModel(source, _as_written()).signature.inputs[0]
    if entry.dtype != "float32" or entry.shape[:1] not in ((None,), (1,)) or None in entry.shape[1:]:
        raise ToolchainError(
            "The model's input does not fit a compiler with fixed shapes.",
            where=f"{source}, input {entry.name}",
            expected="float32, a free batch, and no other open size",
            got=f"{entry.dtype} {entry.shape}",
        )
    return entry.model_copy(update={"shape": (1, *entry.shape[1:])})


def plain_answers(source: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Answers of an ONNX model in onnxruntime, float32 (N, ...), node by node as it is written."""
    return OnnxRuntimeModel(source, _as_written()).predict(x)


def _as_written() -> onnxruntime.SessionOptions:
    options = session_options(threads=1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options
