"""Variant and baseline measured side by side, in sittings of interleaved rounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.benchmark.blocks import Call, time_block, warm_up
from edgemill.benchmark.cores import Pin, Taken
from edgemill.benchmark.interval import BATCHES, Estimate, round_ratios, typical
from edgemill.benchmark.run_length import Stopped, until_precise
from edgemill.recipe import Benchmark

VARIANT, BASELINE = "variant", "baseline"
DISTURBED_SHARE = 0.01
"""Of a round's time: where the process was kept waiting for longer, the round counts as disturbed."""

_FIRST_WARM_UP_S = 5.0
_LATER_WARM_UP_S = 0.5

Report = Callable[[float | None, str], None]


class Comparison:
    """Interleaved rounds of two models.

    A round is a block of calls of each. Which of them goes first changes from round to round (ABBA),
    so that drift, other load and clock changes meet both alike, and only their ratio within a round
    is compared.

    A round is disturbed when the operating system or the hypervisor gave the core to something else
    for more than `DISTURBED_SHARE` of it (where the system does not tell how long: when an
    involuntary context switch happened). This is read from the system's counters, never from the
    times of the models. Disturbed rounds are measured again; they are left out when there are as
    many undisturbed ones as the recipe's minimum, else all rounds count. After a sitting of which
    half was disturbed, the measurement looks for a quieter core.
    """

    def __init__(
        self,
        load: Callable[[], Mapping[str, Call]],
        rule: Benchmark,
        pin: Pin,
        report: Report,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare a comparison.

        Args:
            load: loads both models anew and gives the calls to time, by `VARIANT` and `BASELINE`.
            rule: how much is measured.
            pin: where this process runs.
            report: told the progress.
            between: done before every sitting, outside of the time budget.
        """
        self._load = load
        self._between = between
        self._rule = rule
        self._pin = pin
        self._report = report
        self._spent_s = 0.0
        self._sitting_began: float | None = None
        self._calls: Mapping[str, Call] = {}
        self._rounds: list[dict[str, NDArray[np.int64]]] = []
        self._sitting_of: list[int] = []
        self._disturbed: list[bool] = []
        self._sittings = 0
        self._warm_up_blocks = 0
        self._taken: list[Taken] = []
        self._stopped: Stopped | None = None

    def run(self, confidence: float) -> Estimate:
        """Measure; returns the ratio with its interval of this confidence, see `Estimate.reproducible`."""
        self._stopped = until_precise(self._sit, self._rule, confidence, self._out_of_time)
        ratios = round_ratios(*(self.times(name).astype(np.float64) for name in (VARIANT, BASELINE)))
        return typical(ratios, confidence).reproducible()

    def times(self, name: str, every: bool = False) -> NDArray[np.int64]:
        """Nanoseconds of a model's calls in the rounds that count (or in every one), int64 (rounds, runs)."""
        rounds = self._rounds if every else [self._rounds[index] for index in self.counting()]
        return np.stack([times[name] for times in rounds])

    def counting(self) -> list[int]:
        """Numbers of the rounds that count, ascending."""
        quiet = [index for index, disturbed in enumerate(self._disturbed) if not disturbed]
        return quiet if len(quiet) >= max(self._rule.rounds, BATCHES) else list(range(len(self._rounds)))

    def samples(self) -> dict[str, NDArray[Any]]:
        """Everything that was measured, in order of time.

        Returns:
            `variant_ns` and `baseline_ns`, int64 (rounds, runs); `sitting`, int64 (rounds,);
            `disturbed`, bool (rounds,); `counted`, bool (rounds,).
        """
        counted = np.zeros(len(self._rounds), bool)
        counted[self.counting()] = True
        return {
            "variant_ns": self.times(VARIANT, every=True),
            "baseline_ns": self.times(BASELINE, every=True),
            "sitting": np.array(self._sitting_of, np.int64),
            "disturbed": np.array(self._disturbed, bool),
            "counted": counted,
        }

    def facts(self) -> dict[str, Any]:
        """How it was measured, as JSON values."""
        waits = [taken.waited_ns for taken in self._taken]
        return {
            "stopped": self._stopped,
            "rounds": len(self._rounds),
            "rounds_counted": len(self.counting()),
            "rounds_disturbed": sum(self._disturbed),
            "sittings": self._sittings,
            "warm_up_blocks": self._warm_up_blocks,
            "involuntary_switches": sum(taken.switches for taken in self._taken),
            "waited_ms": None if None in waits else sum(wait or 0 for wait in waits) / 1e6,
            "stolen_ms": sum(taken.stolen_ns for taken in self._taken) / 1e6,
        }

    def _sit(self, rounds: int) -> NDArray[np.float64]:
        first = self._sittings == 0
        last = [bad for bad, of in zip(self._disturbed, self._sitting_of, strict=True) if of == self._sittings - 1]
        if last and 2 * sum(last) >= len(last):
            self._pin.choose()
        self._between()
        self._sitting_began = time.monotonic()
        # The models of the last sitting live until the new ones are loaded: so these lie elsewhere.
        self._calls = self._load()
        for call in self._calls.values():
            limit = _FIRST_WARM_UP_S if first else _LATER_WARM_UP_S
            self._warm_up_blocks += warm_up(call, self._rule.runs_per_round, limit)
        for _ in range(rounds):
            if self._sittings >= BATCHES and self._out_of_time():
                break
            self._round()
        self._spent_s, self._sitting_began = self._elapsed(), None
        self._sittings += 1
        return self._quiet_ratios()

    def _round(self) -> None:
        order = (VARIANT, BASELINE) if len(self._rounds) % 2 == 0 else (BASELINE, VARIANT)
        before = Taken.now(self._pin.cores)
        start = time.perf_counter_ns()
        self._rounds.append({name: time_block(self._calls[name], self._rule.runs_per_round) for name in order})
        lasted = time.perf_counter_ns() - start
        taken = Taken.now(self._pin.cores).since(before)
        self._taken.append(taken)
        self._disturbed.append(is_disturbed(taken, lasted))
        self._sitting_of.append(self._sittings)
        done, spent = len(self._rounds) / self._rule.rounds, self._elapsed() / self._rule.time_budget_s
        self._report((min(done, 1.0) + min(spent, 1.0)) / 2, f"round {len(self._rounds)}")

    def _quiet_ratios(self) -> NDArray[np.float64]:
        quiet = [times for times, disturbed in zip(self._rounds, self._disturbed, strict=True) if not disturbed]
        if not quiet:
            return np.empty(0)
        return round_ratios(
            *(np.stack([times[name] for times in quiet]).astype(np.float64) for name in (VARIANT, BASELINE))
        )

    def _elapsed(self) -> float:
        """Seconds in sittings so far, without what is done between them."""
        sitting = 0.0 if self._sitting_began is None else time.monotonic() - self._sitting_began
        return self._spent_s + sitting

    def _out_of_time(self) -> bool:
        return self._elapsed() >= self._rule.time_budget_s


def is_disturbed(taken: Taken, lasted_ns: int) -> bool:
    """Whether too much of a round went to something else; see `Comparison`."""
    if taken.waited_ns is None:
        return taken.switches > 0 or taken.stolen_ns > 0
    return taken.waited_ns > DISTURBED_SHARE * lasted_ns or taken.stolen_ns > DISTURBED_SHARE * lasted_ns
