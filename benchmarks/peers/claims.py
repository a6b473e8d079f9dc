"""What has to hold between Edgemill and its peers, computed from the rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.common import Claim

LATENCY, LATENCY_STRETCH = 0.08, 0.05
"""Of the fp32 ONNX in onnxruntime."""
AGAINST_BEST_PEER = 0.35
SIZE_01, SIZE_01_STRETCH, SIZE_005 = 1 / 60, 1 / 80, 1 / 40
"""Of the fp32 ONNX, both after gzip."""
QUICK_PEERS = 6
"""Models of peers that a quick run has to come by."""

Row = Mapping[str, Any]


def claims(rows: Sequence[Row], quick: bool, alone: bool = False) -> list[Claim]:
    """The claims of a run.

    Args:
        rows: as `judge` gives them.
        quick: 2,000 test images cannot prove much: models that are not worse by proof stand for those that are
            proven not to be worse, and the claims say so in their names.
        alone: no models of Edgemill were asked for, so nothing is claimed of them.
    """
    suffix = "_not_failed_on_2000_images" if quick else ""
    found = [Claim("peer_models_measured", float(len(_measured(rows, "peer"))), ">=", QUICK_PEERS if quick else 1)]
    if alone:
        return found
    own, peer = (_least(rows, who, "005", "latency_ratio", quick) for who in ("edgemill", "peer"))
    sizes = {m: _least(rows, "edgemill", m, "compressed_ratio", quick) for m in ("005", "01")}
    return [
        *found,
        Claim(f"latency_of_fp32_at_0.005{suffix}", own, "<=", LATENCY),
        Claim(f"latency_of_best_peer_at_0.005{suffix}", own / peer, "<=", AGAINST_BEST_PEER),
        Claim(f"compressed_of_fp32_at_0.005{suffix}", sizes["005"], "<=", SIZE_005),
        Claim(f"compressed_of_fp32_at_0.01{suffix}", sizes["01"], "<=", SIZE_01),
    ]


def stretch(rows: Sequence[Row], quick: bool) -> list[str]:
    """Sentences on the best of both sides and on the stretch goals; for information."""
    said = []
    for who, words in (("edgemill", "Edgemill"), ("peer", "peers")):
        for margin, key, what in (
            ("005", "latency_ratio", "latency"),
            ("005", "compressed_ratio", "compressed bytes"),
            ("01", "compressed_ratio", "compressed bytes"),
        ):
            best = min(_accepted(rows, who, margin, quick), key=lambda row: float(row[key]), default=None)
            if best is not None:
                said.append(f"best of {words} at margin 0.{margin}, {what}: {_share(best[key])} ({best['model']})")
    reached = [
        f"{name} {_share(bound)}: {'reached' if value <= bound else 'not reached'}"
        for name, value, bound in (
            ("latency at 0.005", _least(rows, "edgemill", "005", "latency_ratio", quick), LATENCY_STRETCH),
            ("bytes at 0.01", _least(rows, "edgemill", "01", "compressed_ratio", quick), SIZE_01_STRETCH),
        )
        if math.isfinite(value)
    ]
    return [*said, *([f"stretch: {'; '.join(reached)}"] if reached else [])]


def _measured(rows: Sequence[Row], who: str) -> list[Row]:
    return [row for row in rows if row["who"] == who and "latency_ratio" in row]


def _accepted(rows: Sequence[Row], who: str, margin: str, quick: bool) -> list[Row]:
    good = ("PASS", "INCONCLUSIVE") if quick else ("PASS",)
    return [row for row in _measured(rows, who) if row[f"verdict_{margin}"] in good]


def _least(rows: Sequence[Row], who: str, margin: str, key: str, quick: bool) -> float:
    """Smallest value among the accepted; NaN for none, which no claim survives."""
    return min((float(row[key]) for row in _accepted(rows, who, margin, quick)), default=math.nan)


def _share(value: float) -> str:
    return f"{value:.3g} of fp32" if value > 1 / 10 else f"{value:.3g} = 1/{1 / value:.3g} of fp32"
