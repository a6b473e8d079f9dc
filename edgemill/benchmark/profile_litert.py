"""Time of every operator of a TFLite file, from LiteRT's own profiler."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgemill.benchmark import profile_litert_child
from edgemill.benchmark.profile_nodes import NodeTime, Profile
from edgemill.errors import ToolchainError
from edgemill.runtimes.convert import to_stored
from edgemill.runtimes.litert import RUNTIME, LiteRtModel

DELEGATE, BUILTIN = "XNNPACK", "built-in kernels"
METHOD = (
    "LiteRT's own profiler in a compiled model with the XNNPACK kernels that the interpreter also uses; it counts "
    "whole microseconds, so that operators of less than one are underrated; of many batches the fastest quarter"
)
_TIME_LIMIT_S = 60.0
_BUDGET_S = 2.0
_RUNS = 10
_BATCHES = 40
_KEPT = 0.25
"""Share of the batches, the fastest, that counts."""
_ROW = re.compile(
    r"^\s*(?P<kind>\S.*?)\s+\d+\.\d+\s+\d+\.\d+\s+\d+\.\d+\s+(?P<share>\d+\.\d+)%\s+\d+\.\d+%"
    r"\s+\S+\s+(?P<calls>\d+)\s+(?P<name>\S.*)$"
)
_TOTAL = re.compile(r"^Timings \(microseconds\): count=\d+.*?curr=(?P<us>\d+)", re.MULTILINE)
_PREFIX = "Delegate/"


def profile_litert(path: Path, x: NDArray[np.float32], threads: int, per_inference_us: float) -> Profile:
    """Profile one TFLite file.

    Args:
        path: the file.
        x: float32 (N, ...), the batch of every inference; N as the file has it, 1 where it is free.
        threads: threads of XNNPACK.
        per_inference_us: median of a call without the profiler.

    Raises:
        ToolchainError: LiteRT cannot load or run the file, or its profile cannot be read.
    """
    entry = LiteRtModel(path, threads).signature.inputs[0]
    runs = max(1, min(_RUNS, int(_BUDGET_S / _BATCHES * 1e6 / max(per_inference_us, 1.0))))
    with tempfile.TemporaryDirectory(prefix="edgemill-profile-") as folder:
        sample = Path(folder) / "input.npy"
        np.save(sample, np.ascontiguousarray(to_stored(x, entry)), allow_pickle=False)
        texts = _profiled(path, sample, threads, runs)
    nodes = read_summaries(texts, path.name, runs)
    return Profile(
        runtime=f"{RUNTIME.name} {RUNTIME.version()}",
        method=METHOD,
        asked=DELEGATE,
        nodes=nodes,
        per_inference_us=per_inference_us,
        fixed_us=max(0.0, per_inference_us - sum(node.us for node in nodes) - len(nodes)),
        overhead_us=0.0,
    )


def read_summaries(texts: Sequence[str], where: str, runs: int) -> tuple[NodeTime, ...]:
    """Time of every operator in the fastest batches, in order of execution.

    LiteRT gives means only, and other load makes a batch slower, never faster. It goes on counting from one
    batch to the next, so a batch is what its summary has more than the one before.

    Args:
        texts: of LiteRtGetProfileSummary after each batch, at least one.
        where: named in the error.
        runs: inferences in a batch.

    Raises:
        ToolchainError: a text is not such a summary, or they do not belong together.
    """
    read = [_read_summary(text, where) for text in texts]
    first = read[0]
    if any([row.title for row in rows] != [row.title for row in first] for rows in read):
        raise ToolchainError("The profiles of LiteRT name other operators from batch to batch.", where=where)
    us = np.array([[row.us for row in rows] for rows in read])
    calls = np.array([[row.calls for row in rows] for rows in read])
    if len(read) > 1 and (np.diff(calls, axis=0) > 0).all():
        us = np.diff(us, axis=0, prepend=0.0)
    batches = us[np.argsort(us.sum(axis=1))][: max(1, math.ceil(len(us) * _KEPT))]
    means = np.maximum(batches.mean(axis=0) / runs, 0.0)
    return tuple(
        NodeTime(
            name=row.title[1],
            operator=row.title[0].removeprefix(_PREFIX),
            provider=DELEGATE if row.title[0].startswith(_PREFIX) else BUILTIN,
            us=float(mean),
        )
        for row, mean in zip(first, means, strict=True)
    )


class _Row(NamedTuple):
    """One operator in a summary: type and name, microseconds of all its calls, and their number."""

    title: tuple[str, str]
    us: float
    calls: int


def _read_summary(text: str, where: str) -> list[_Row]:
    table, total = text.partition("Top by Computation Time")[0], _TOTAL.search(text)
    rows = [found for line in table.splitlines() if (found := _ROW.match(line))]
    if "Run Order" not in table or total is None or not rows:
        raise ToolchainError(
            "The profile of LiteRT cannot be read.",
            where=where,
            expected="a table 'Run Order' and a line 'Timings'",
            got=text[:300] or "nothing",
        )
    # The shares have more digits than the times.
    whole = float(total["us"]) / 100
    return [
        _Row((row["kind"].strip(), row["name"].strip()), whole * float(row["share"]), int(row["calls"])) for row in rows
    ]


def tensor_types(path: Path, threads: int) -> set[str]:
    """numpy names of the types of all tensors of a file."""
    details: list[dict[str, Any]] = LiteRtModel(path, threads).interpreter.get_tensor_details()
    return {np.dtype(detail["dtype"]).name for detail in details}


def _profiled(path: Path, sample: Path, threads: int, runs: int) -> list[str]:
    command = [
        sys.executable,
        "-P",
        str(Path(profile_litert_child.__file__)),
        str(path),
        str(sample),
        str(threads),
        str(runs),
        str(_BATCHES),
    ]
    try:
        child = subprocess.run(
            command, check=False, capture_output=True, text=True, errors="replace", timeout=_TIME_LIMIT_S
        )
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(
            "Profiling with LiteRT took too long.", where=path.name, expected=f"at most {_TIME_LIMIT_S:.0f} s"
        ) from error
    if child.returncode:
        lines = [line for line in child.stderr.splitlines() if not line.startswith(("INFO", "WARNING"))]
        raise ToolchainError(
            "LiteRT could not profile the model.",
            where=path.name,
            got=" ".join(lines[-2:])[-300:] or f"exit status {child.returncode}",
        )
    return child.stdout.split(profile_litert_child.SEPARATOR)
