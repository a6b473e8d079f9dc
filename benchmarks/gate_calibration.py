"""How often does a gate let a model pass whose true loss is exactly the margin? At most 5 of 100 is the promise.

Paired outcomes (lost, won) of n samples are drawn over the grid n x discordance x margin with the true
drop at the margin (every PASS is wrong there) and well inside it (every PASS is right). Where the margin
exceeds the discordance, the discordance is the margin: every discordant sample is lost. Beside the
simulation the rate of PASS is summed exactly over the trinomial distribution, for the cells, and as the
largest over every discordance ("any") for more n and confidences; there also the rate of FAIL of a
model whose drop is not above the margin.

Judged on the same draws:

gate     edgemill's, `compare_binary`
score    the same with the asymptotic score interval alone (Tango 1998)
point    PASS iff the observed drop is below the margin
nncf     quantize_with_accuracy_control: iff drop <= max_drop on the whole validation set
nncf_5   the same as it goes on after a miss: up to 5 candidates in turn on the same samples, all of
         them at the margin, with independent losses. edgemill's fixed sequence stops at the first that
         does not pass, so its rate for any number of candidates is that of one
olive    a goal `max-degradation`: iff accuracy >= accuracy of the input model - value
olive_threshold   a goal `threshold` alone: Engine.resolve_goals drops it, so everything passes
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.common import Claim, arguments, finish
from benchmarks.gate_calibration_rules import Table, Truth, gate_table, largest_rate, pass_rate, tables, window
from edgemill.recipe import Budget
from edgemill.validate.paired_proportions import compare_binary

SIZES = (200, 1000, 10_000)
DISCORDANCES = (0.01, 0.05, 0.20)
MARGINS = (0.002, 0.005, 0.01, 0.02)
CONFIDENCE = 0.95
DRAWS = 4000
MORE_SIZES = (20, 50, 100, 200, 500, 539, 1000)
MORE_CONFIDENCES = (0.90, 0.95, 0.99)
SIMULATION_ERROR = 0.01
"""Chance that the simulation blames a gate that keeps its promise in every cell (Bonferroni over the cells)."""
TRIES = 5
CHECKED_DRAWS = 6
SEED = 20261123
COLUMNS = (
    "n", "confidence", "discordance", "margin", "gate_simulated", "gate", "score", "point", "nncf", "nncf_5", "olive",
    "olive_threshold", "gate_false_fail", "gate_power_at_0", "score_power_at_0", "gate_power_at_half",
)  # fmt: skip


def main() -> int:
    """Run the benchmark; returns the exit status."""
    options = arguments(__doc__).parse_args()
    sizes, draws = (SIZES[:2], DRAWS // 4) if options.quick else (SIZES, DRAWS)
    more = [(n, CONFIDENCE) for n in MORE_SIZES[:3]]
    if not options.quick:
        more = [(n, confidence) for confidence in MORE_CONFIDENCES for n in MORE_SIZES]
    rows = [row for n in sizes for margin in MARGINS for row in cells(n, margin, draws)]
    cell_count = len(rows)
    rows += [any_discordance(n, confidence, margin) for n, confidence in more for margin in MARGINS]
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        picture(rows[:cell_count], options.json.with_suffix(".svg"))
    return finish(rows, COLUMNS, claims(rows), options.json, ("numpy", "scipy"))


def claims(rows: list[dict[str, Any]]) -> list[Claim]:
    """What has to hold, computed from the rows."""
    simulated = [row for row in rows if "draws" in row]
    over = max(row["gate_simulated"] - row["simulation_bound"] for row in simulated)
    wrong_pass = max(row["gate"] / (1 - row["confidence"]) for row in rows)
    wrong_fail = max(row["gate_false_fail"] / (1 - row["confidence"]) for row in rows if "gate_false_fail" in row)
    # Where the score interval keeps the promise itself, its power is the price of exactness.
    price = max(row["score_power_at_0"] - row["gate_power_at_0"] for row in simulated if row["score"] <= 1 - CONFIDENCE)
    return [
        Claim("gate_false_pass_simulated_over_bound", over, "<=", 0.0),
        Claim("gate_false_pass_exact_share_of_promised", wrong_pass, "<=", 1.0),
        Claim("gate_false_fail_exact_share_of_promised", wrong_fail, "<=", 1.0),
        Claim("verdicts_unlike_the_table", float(sum(row["unlike"] for row in simulated)), "<=", 0.0),
        Claim("power_lost_to_the_score_interval", price, "<=", 0.05),
    ]


def cells(n: int, margin: float, draws: int) -> Iterator[dict[str, Any]]:
    """A row for every discordance."""
    truths = {share: _truths(share, margin) for share in DISCORDANCES}
    wanted = np.zeros(n + 1, bool)
    for truth in (truth for several in truths.values() for truth in several.values()):
        first, last = window(n, truth.discordance)
        wanted[first : last + 1] = True
    found = tables(n, margin, CONFIDENCE, wanted)
    for share in DISCORDANCES:
        at_margin = truths[share]["at_margin"]
        row: dict[str, Any] = {"n": n, "confidence": CONFIDENCE, "discordance": share, "margin": margin, "draws": draws}
        row |= {"discordance_at_margin": at_margin.discordance, "all_lost_at_margin": at_margin.won == 0}
        row["simulation_bound"] = _simulation_bound(draws)
        row |= {name: pass_rate(table, n, at_margin) for name, table in found.items()}
        row["nncf_5"] = 1 - (1 - row["nncf"]) ** TRIES
        for place in ("at_0", "at_half"):
            for name in ("gate", "score", "point"):
                row[f"{name}_power_{place}"] = pass_rate(found[name], n, truths[share][place])
        yield row | _simulate(n, margin, draws, truths[share], found)


def any_discordance(n: int, confidence: float, margin: float) -> dict[str, Any]:
    """A row with the largest rates over every discordance, the drop at the margin."""
    everything = np.ones(n + 1, bool)
    row: dict[str, Any] = {"n": n, "confidence": confidence, "discordance": "any", "margin": margin}
    for name, table in tables(n, margin, confidence, everything).items():
        row[name], row[f"{name}_worst_discordance"] = largest_rate(table, n, margin, margin)
    fails = gate_table(n, -margin, confidence, everything)
    # A FAIL is wrong at every drop up to the margin, so fewer discordant samples than that count, too.
    row["gate_false_fail"], row["gate_false_fail_worst_discordance"] = largest_rate(fails, n, -margin, 0.1 / n)
    return row | {"nncf_5": 1 - (1 - row["nncf"]) ** TRIES}


def _truths(share: float, margin: float) -> dict[str, Truth]:
    return {
        "at_margin": Truth(margin, max(share, margin)),
        "at_0": Truth(0.0, share),
        "at_half": Truth(margin / 2, max(share, margin / 2)),
    }


def _simulation_bound(draws: int) -> float:
    grid = len(SIZES) * len(DISCORDANCES) * len(MARGINS)
    return float(stats.binom.ppf(1 - SIMULATION_ERROR / grid, draws, 1 - CONFIDENCE)) / draws


def _simulate(
    n: int, margin: float, draws: int, truths: Mapping[str, Truth], found: Mapping[str, Table]
) -> dict[str, Any]:
    """Shares of PASS among the draws, and verdicts of `compare_binary` that are not those of the table."""
    row: dict[str, Any] = {"unlike": 0}
    for place, truth in truths.items():
        rng = np.random.default_rng([SEED, n, round(1e6 * margin), round(1e6 * truth.discordance), len(place)])
        lost, won = rng.multinomial(n, [truth.lost, truth.won, 1 - truth.discordance], size=draws)[:, :2].T
        suffix = "simulated" if place == "at_margin" else f"power_{place}_simulated"
        passed = {name: lost <= table[lost + won] for name, table in found.items()}
        row |= {f"{name}_{suffix}": float(share.mean()) for name, share in passed.items()}
        if place == "at_margin":
            row["nncf_5_simulated"] = float(passed["nncf"].reshape(-1, TRIES).any(axis=1).mean())
        # Among them the outcomes nearest to the limit, where a disagreement would show.
        order = np.argsort(np.abs(lost - found["gate"][lost + won] - 0.5), kind="stable")
        for index in order[np.linspace(0, draws // 4, CHECKED_DRAWS).astype(int)].tolist():
            row["unlike"] += _verdict_passes(int(lost[index]), int(won[index]), n, margin) != passed["gate"][index]
    row["unlike"] = int(row["unlike"])
    return row


def _verdict_passes(lost: int, won: int, n: int, margin: float) -> bool:
    baseline, variant = np.ones(n), np.ones(n)
    variant[:lost] = 0
    baseline[lost : lost + won] = 0
    return compare_binary(baseline, variant, Budget(max_accuracy_drop=margin, confidence=CONFIDENCE)).passed


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """False PASS of every cell, by rule, as SVG."""
    series = {
        "gate": ("edgemill", "#1a7f37"),
        "score": ("score interval alone", "#9a6700"),
        "nncf": ("NNCF, Olive: observed drop", "#cf222e"),
        "nncf_5": ("NNCF, 5 tries", "#82071e"),
    }
    step, left, top, height = 20, 60, 60, 260
    width = left + step * len(rows) + 60

    def y(rate: float) -> float:
        return top + height * (1 - rate)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top + height + 130}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="20" font-size="14">PASS of a model whose true drop is exactly the margin '
        "(every one is wrong)</text>",
    ]
    for index, (label, colour) in enumerate(series.values()):
        x = left + 170 * index
        parts.append(f'<circle cx="{x}" cy="36" r="4" fill="{colour}"/><text x="{x + 8}" y="40">{label}</text>')
    for rate in (0, 0.05, 0.25, 0.5, 0.75, 1):
        stroke = "#1a7f37" if rate == 0.05 else "#d0d7de"
        parts.append(f'<path d="M{left} {y(rate):.1f}H{left + step * len(rows)}" stroke="{stroke}"/>')
        parts.append(f'<text x="{left - 8}" y="{y(rate) + 4:.1f}" text-anchor="end">{100 * rate:g} %</text>')
    for index, row in enumerate(rows):
        middle = left + step * (index + 0.5)
        for name, (_label, colour) in reversed(series.items()):
            parts.append(f'<circle cx="{middle}" cy="{y(row[name]):.1f}" r="4" fill="{colour}"/>')
        label = f"n {row['n']}, margin {100 * row['margin']:g}, discordance {100 * row['discordance']:g} %"
        turn = f"translate({middle - 4} {top + height + 10}) rotate(60)"
        parts.append(f'<text transform="{turn}" font-size="8">{label}</text>')
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
