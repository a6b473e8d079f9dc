"""Candidates of a mixed-precision search: files in which some groups are int8, and what the judge says of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.quantize.mixed.groups import with_islands
from edgemill.quantize.mixed.judge import Answers, Judge
from edgemill.quantize.mixed.search import Wide
from edgemill.quantize.mixed.source import Source
from edgemill.runtimes import open_model

_GLANCE_SHARE = 16
_GLANCE_LEAST = 64
_RANKED = 64


@dataclass(frozen=True)
class Sensitivity:
    """What int8 costs in one group while all others are float.

    Attributes:
        group: index.
        noise: squared error of the output over its squared values, on the samples that int8 changes most;
            infinite where the output is not finite.
    """

    group: int
    noise: float


class Candidates:
    """Makes candidates and has them judged; a `search.Trial`."""

    def __init__(self, source: Source, judge: Judge, folder: Path, limit: int) -> None:
        """Set up.

        Args:
            source: the float graph.
            judge: says whether a candidate passes.
            folder: for files.
            limit: most full evaluations, those made already included.
        """
        self.groups = source.groups
        self._source, self._judge, self._folder, self._limit = source, judge, folder, limit
        self._file = folder / "candidate.onnx"
        self._made: dict[Wide, tuple[Path, list[dict[str, Any]]]] = {}
        self._samples: NDArray[np.int64] = np.arange(0)
        # The caller has seen to it that everything float passes.
        self._known: dict[Wide, bool] = {frozenset(range(len(self.groups))): True}
        self._hopes: dict[Wide, bool] = {}
        self.glances = 0

    @property
    def left(self) -> int:
        """See `search.Trial`."""
        return max(0, self._limit - len(self._judge.evaluations))

    def hopeful(self, wide: Wide) -> bool:
        """See `search.Trial`: asks the samples most at risk in the last rejected one; others count as unchanged."""
        wide = with_islands(self.groups, wide)
        if wide in self._known:
            return self._known[wide]
        if wide not in self._hopes:
            self.glances += 1
            self._hopes[wide] = self._judge.glance(self._sketch(wide), self._samples)
        return self._hopes[wide]

    def passes(self, wide: Wide) -> bool:
        """See `search.Trial`."""
        wide = with_islands(self.groups, wide)
        if wide not in self._known:
            names = [group.name for index, group in enumerate(self.groups) if index in wide]
            facts, answers = self._judge.full("mixed", self._finished(wide)[0], wide=names)
            self._known[wide] = facts.verdict.passed
            if not facts.verdict.passed:
                self.look_at(answers)
        return self._known[wide]

    def look_at(self, answers: Answers) -> None:
        """Take the samples of cheap looks from the answers of a rejected candidate, float32 (N, ...)."""
        count = max(_GLANCE_LEAST, len(answers) // _GLANCE_SHARE)
        self._samples = self._judge.at_risk(answers, count)
        self._hopes = {}

    def rank(self, report: Callable[[float | None, str], None]) -> tuple[Sensitivity, ...]:
        """Sort the groups, most harmful first.

        Each group is quantized alone. Restoring one group alone in an int8 graph would not do: a badly
        quantized activation stays so until the operator that makes it and the one that reads it are both
        float, so that neither would stand out.

        Args:
            report: progress, up to 1.
        """
        samples = self._samples[:_RANKED]
        x, right = self._judge.features(samples), self._judge.reference[samples].astype(np.float64)
        power = float((right**2).sum()) or 1.0
        found = []
        for index, group in enumerate(self.groups):
            self._source.write(self._file, only=group.nodes)
            answers = open_model(self._file, "onnx").predict(x).astype(np.float64)
            noise = float(((answers.reshape(right.shape) - right) ** 2).sum()) / power
            found.append(Sensitivity(index, noise if np.isfinite(noise) else np.inf))
            report((index + 1) / len(self.groups), f"sensitivity of {group.name}")
        return tuple(sorted(found, key=lambda item: (-item.noise, item.group)))

    def make(self, wide: Wide, path: Path) -> list[dict[str, Any]]:
        """Write a candidate where it shall stay; returns the records of its repairs."""
        file, repairs = self._finished(with_islands(self.groups, wide))
        shutil.copyfile(file, path)
        return repairs

    def judge_file(self, path: Path, what: str, **details: Any) -> bool:
        """One full evaluation of a file that was made from a candidate."""
        facts, _ = self._judge.full(what, path, **details)
        return facts.verdict.passed

    def nodes(self, wide: Wide) -> tuple[str, ...]:
        """Names of the operators that are float, islands included, in the order of the groups."""
        wide = with_islands(self.groups, wide)
        return tuple(name for index, group in enumerate(self.groups) if index in wide for name in group.nodes)

    def _sketch(self, wide: Wide) -> Path:
        self._source.write(self._file, leave=self.nodes(wide))
        self._source.repair(self._file, quick=True)
        return self._file

    def _finished(self, wide: Wide) -> tuple[Path, list[dict[str, Any]]]:
        """The candidate as it is judged and shipped, made once."""
        if wide not in self._made:
            path = self._folder / f"candidate{len(self._made)}.onnx"
            self._source.write(path, leave=self.nodes(wide))
            self._made[wide] = path, self._source.repair(path, quick=False)
        return self._made[wide]
