"""What an interval of the latency ratio says about speed."""

from __future__ import annotations

from typing import Literal

SpeedVerdict = Literal["faster", "slower", "no different"]


def speed_verdict(ratio: float, lower: float, upper: float) -> SpeedVerdict:
    """Whether a variant is faster than the baseline beyond noise.

    Args:
        ratio: latency of the variant / latency of the baseline.
        lower: lower end of the ratio's interval.
        upper: upper end of the ratio's interval.

    Returns:
        `faster` where the whole interval, the estimate with it, is below 1, `slower` where it is
        above 1, else `no different`; so it is, too, for NaN.
    """
    if ratio < 1 and upper < 1 and lower < 1:
        return "faster"
    if ratio > 1 and upper > 1 and lower > 1:
        return "slower"
    return "no different"
