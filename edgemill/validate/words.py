"""Numbers of a check in words, the same in every form of the report."""

from __future__ import annotations

from collections.abc import Iterable

from edgemill.validate.verdict import Bound, Group, Verdict

NONE = "\N{EN DASH}"
POINTS = "points"


def number_text(value: float | None, check: Verdict) -> str:
    """A number of a check in its unit; fractions of a share in points."""
    if value is None:
        return NONE
    return f"{100 * value:.3g}" if check.unit == POINTS else f"{value:.4g}"


def interval_text(check: Verdict) -> str:
    """Estimate, bounds and margin, e.g. `0.21 points (-0.05 to 0.45), must be below 0.5 points`."""
    unit = f" {check.unit}" if check.unit else ""
    side = "below" if check.bound is Bound.BELOW else "above"
    estimate, lower, upper, margin = (
        number_text(value, check) for value in (check.estimate, check.lower, check.upper, check.margin)
    )
    bounds = "" if check.lower is None and check.upper is None else f" ({lower} to {upper})"
    return f"{estimate}{unit}{bounds}, must be {side} {margin}{unit}"


def bounds_text(check: Verdict) -> str:
    """Both one-sided bounds, without the unit."""
    return f"{number_text(check.lower, check)} to {number_text(check.upper, check)}"


def margin_text(check: Verdict) -> str:
    """The margin with its side, e.g. `< 0.5 points`."""
    unit = f" {check.unit}" if check.unit else ""
    return f"{'<' if check.bound is Bound.BELOW else '>'} {number_text(check.margin, check)}{unit}"


def worst_groups(groups: Iterable[Group], check: Verdict, most: int = 3) -> str:
    """The groups of a check that are nearest to failing, worst first; empty where it has none."""
    own = sorted((group for group in groups if group.gate == check.gate), key=lambda group: -group.upper)
    return "; ".join(map(_group_text, own[:most]))


def _group_text(group: Group) -> str:
    title = f"class {group.name}" if group.gate == "classes" else group.name
    estimate, lower, upper = (f"{100 * value:.3g}" for value in (group.estimate, group.lower, group.upper))
    return f"{title}: {group.verdict}, drop {estimate} ({lower} to {upper}) points, n {group.n:,}"
