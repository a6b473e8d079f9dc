"""Timing of one model: a block of consecutive calls."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Call = Callable[[], Any]

_UNTIMED = 2
_WARM_BLOCKS = 3
_WARM_SPREAD = 0.05


def time_block(call: Call, runs: int) -> NDArray[np.int64]:
    """Nanoseconds of consecutive calls, int64 (runs,).

    Two calls before them are not timed: they bring the model back into the caches that the other
    model has used, as in a process that serves one model.
    """
    for _ in range(_UNTIMED):
        call()
    stamps = [0] * (runs + 1)
    clock = time.perf_counter_ns
    collecting = gc.isenabled()
    gc.disable()
    try:
        stamps[0] = clock()
        for index in range(1, runs + 1):
            call()
            stamps[index] = clock()
    finally:
        if collecting:
            gc.enable()
    moments = np.asarray(stamps, dtype=np.int64)
    return moments[1:] - moments[:-1]


def warm_up(call: Call, runs: int, limit_s: float) -> int:
    """Run blocks until the medians of the last three agree within 5 %, or a limit of time.

    Returns:
        The number of blocks.
    """
    deadline = time.monotonic() + limit_s
    medians: list[float] = []
    while time.monotonic() < deadline or not medians:
        medians.append(float(np.median(time_block(call, runs))))
        recent = medians[-_WARM_BLOCKS:]
        if len(recent) == _WARM_BLOCKS and max(recent) <= (1 + _WARM_SPREAD) * min(recent):
            break
    return len(medians)
