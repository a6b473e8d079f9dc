"""What every benchmark shares: interleaved timing, claims computed from rows, one JSON form.

A benchmark is `python -m benchmarks.NAME [--quick] [--json FILE]`. It prints a table and its claims,
writes FILE, and exits 1 if a claim does not hold.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.artifact import Artifact, digest_path, size_of
from edgemill.benchmark.blocks import time_block
from edgemill.benchmark.cores import pinned
from edgemill.benchmark.host import fingerprint
from edgemill.step import InputFile, StepContext, tool_versions

_WARM_UP_BLOCKS = 5
_RELATIONS: dict[str, Callable[[float, float], bool]] = {"<=": lambda a, b: a <= b, ">=": lambda a, b: a >= b}


@dataclass(frozen=True)
class Claim:
    """One statement with a number, computed from the rows.

    Attributes:
        id: short name.
        value: what was found.
        relation: `<=` or `>=`.
        bound: what it is held against.
    """

    id: str
    value: float
    relation: str
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the relation is true; never for NaN."""
        return math.isfinite(self.value) and _RELATIONS[self.relation](self.value, self.bound)

    def record(self) -> dict[str, Any]:
        """JSON value."""
        return {
            "id": self.id,
            "value": self.value if math.isfinite(self.value) else None,
            "relation": self.relation,
            "bound": self.bound,
            "holds": self.holds,
        }


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller and faster, the same claims")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write environment, rows and claims")
    return parser


def environment(tools: tuple[str, ...] = ()) -> dict[str, Any]:
    """The machine, and the installed versions of what was used."""
    return fingerprint() | {"tools": tool_versions(tools)}


def interleaved(
    calls: Mapping[str, Callable[[], Any]], rounds: int, runs: int = 20, threads: int = 1
) -> dict[str, NDArray[np.int64]]:
    """Time calls in alternating order on pinned cores, so that other load meets all alike.

    Returns:
        nanoseconds of each call, int64 (rounds, runs), by name.
    """
    names = list(calls)
    times = {name: np.empty((rounds, runs), np.int64) for name in names}
    with pinned(threads):
        for name in names:
            for _ in range(_WARM_UP_BLOCKS):
                time_block(calls[name], runs)
        for index in range(rounds):
            # Every round begins with another model.
            shift = index % len(names)
            for name in names[shift:] + names[:shift]:
                times[name][index] = time_block(calls[name], runs)
    return times


def ratio(times: NDArray[np.int64], base: NDArray[np.int64]) -> float:
    """Median over the rounds of (median of the round / median of the same round of `base`)."""
    return float(np.median(np.median(times, axis=1) / np.median(base, axis=1)))


def input_file(path: Path, kind: str) -> InputFile:
    """A file or folder as an input of a step."""
    artifact = Artifact(
        digest=digest_path(path), filename=path.name, kind=kind, size_bytes=size_of(path), step="benchmark"
    )
    return InputFile(path, artifact)


def context(folder: Path, seed: int, quiet: bool = False) -> StepContext:
    """Surroundings of a step that runs in this process.

    Args:
        folder: where its outputs go; made here.
        seed: of the step.
        quiet: print no progress.
    """
    out, resume = folder / "out", folder / "resume"
    out.mkdir(parents=True)
    resume.mkdir()
    told = [-1.0]

    def report(fraction: float | None, message: str) -> None:
        if not quiet and (fraction is None or fraction - told[0] >= 0.1 or fraction >= 1):
            told[0] = told[0] if fraction is None else fraction
            print(f"  {folder.name}: {message}", flush=True)

    return StepContext(out, resume, seed, report)


def finish(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    claims: Sequence[Claim],
    path: Path | None,
    tools: tuple[str, ...] = (),
) -> int:
    """Print the table and the claims, write the JSON file, and return the exit status.

    Args:
        rows: raw numbers; may hold more than the table shows.
        columns: keys of the rows that the table shows.
        claims: computed from the rows.
        path: of the JSON file, None for none.
        tools: distributions whose versions matter.
    """
    print(table(rows, columns))
    for claim in claims:
        print(f"{'holds' if claim.holds else 'FAILS'}  {claim.id}: {claim.value:.4g} {claim.relation} {claim.bound:g}")
    if path is not None:
        document = {
            "environment": environment(tools),
            "rows": list(rows),
            "claims": [claim.record() for claim in claims],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0 if claims and all(claim.holds for claim in claims) else 1


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Rows as text in aligned columns."""
    cells = [[_text(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in [list(columns), *cells]) for i in range(len(columns))]
    lines = [
        "  ".join(
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in [list(columns), *cells]
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
