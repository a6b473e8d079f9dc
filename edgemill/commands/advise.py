"""`edgemill advise`: which device, and which variant on it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgemill.advise import Advice, By, Evidence, Figure, Wishes
from edgemill.console import guarded, print_json, print_table

if TYPE_CHECKING:
    from edgemill.summary import Summary

_MARKS = {Evidence.MEASURED: "", Evidence.SIMULATED: " (simulated)", Evidence.ESTIMATED: " (estimated)"}


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--from", "folder", type=click.Path(path_type=Path), help="output folder of the run  [default: the last]")
@click.option("--max-latency-ms", type=float, help="95th percentile of one inference")
@click.option("--max-energy-mj", type=float, help="millijoules of one inference above idle")
@click.option("--min-accuracy", type=float, help="score on the test split")
@click.option("--max-cost", type=float, help="US dollars of one device")
@click.option("--max-ram", "max_ram_bytes", type=int, help="bytes")
@click.option(
    "--evidence",
    type=click.Choice([item.value for item in (Evidence.MEASURED, Evidence.SIMULATED, Evidence.ESTIMATED)]),
    default="estimated",
    show_default=True,
    help="weakest evidence that a limit accepts",
)
@click.option(
    "--by", type=click.Choice([item.value for item in By]), default="latency", show_default=True, help="what ranks"
)
@click.option("--picture", type=click.Path(path_type=Path), help="write the picture here (SVG)")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@guarded
def advise(recipe: Path, folder: Path | None, by: str, picture: Path | None, as_json: bool, **limits: object) -> None:
    """Rank targets and variants of the finished run of RECIPE by what it found, and say why the others are none.

    Exit status: 0 there is a choice; 3 there is none; 2 bad input; 1 anything else.
    """
    from pydantic import ValidationError

    from edgemill.advise import advise as rank
    from edgemill.errors import RecipeError
    from edgemill.files import write_atomically
    from edgemill.recipe import load_recipe
    from edgemill.report.advice_chart import advice_svg
    from edgemill.targets import load_target, target_names

    parsed = load_recipe(recipe)
    try:
        wishes = Wishes.model_validate(limits)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise RecipeError(
            "A limit is not valid.", where=option, expected=first["msg"], got=str(first["input"])
        ) from error
    summary = _summary(parsed.name, folder)
    known = [target.target for target in summary.targets if target.target in target_names()]
    described = {target.name: target for target in map(load_target, (*known, *parsed.targets))}
    advice = rank(summary, described, wishes, By(by))
    if picture is not None:
        write_atomically(picture, advice_svg(advice))
    if as_json:
        print_json(advice.model_dump(mode="json"))
    else:
        _print(advice)
    sys.exit(0 if advice.choices else 3)


def _summary(name: str, folder: Path | None) -> Summary:
    from pydantic import ValidationError

    from edgemill.errors import RecipeError
    from edgemill.store import state_folder
    from edgemill.summary import Summary

    path = (folder or state_folder() / "runs" / name) / "summary.json"
    try:
        return Summary.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise RecipeError(
            "There is no finished run to read.",
            where=str(path),
            remedy="run `edgemill optimize` on the recipe, or give its output folder with --from",
        ) from error
    except (OSError, ValidationError) as error:
        raise RecipeError("The summary of the run cannot be read.", where=str(path), got=str(error)[:200]) from error


def _print(advice: Advice) -> None:
    from edgemill.report.figures import bytes_text, time_text

    rows = [("", "TARGET", "CANDIDATE", "TIME p95", "ENERGY", "SCORE", "RAM", "COMPRESSED", "ONE DEVICE")]
    for number, option in enumerate(advice.choices, start=1):
        rows.append(
            (
                f"{number}{'*' if option.best else ''}",
                option.target,
                option.candidate,
                _cell(option.latency_ms, time_text),
                _cell(option.energy_mj, "{:.3g} mJ".format),
                _cell(option.accuracy, "{:.4f}".format),
                _cell(option.ram_bytes, bytes_text),
                _cell(option.compressed_bytes, bytes_text),
                _cell(option.cost_usd, "{:,.0f} USD".format),
            )
        )
    if advice.choices:
        print_table(rows)
        click.echo("\n* nothing else is as good in everything that is known")
    else:
        click.echo("Nothing holds all limits.")
    for limit, more in advice.without.items():
        if more:
            asked = getattr(advice.wishes, limit)
            click.echo(f"without --{limit.removesuffix('_bytes').replace('_', '-')} {asked:g}: {more} more")
    excluded = [option for option in advice.options if option.excluded]
    if excluded:
        click.echo("\nexcluded")
        print_table([("", option.target, option.candidate, "; ".join(option.excluded)) for option in excluded])


def _cell(figure: Figure, words: Callable[[float], str]) -> str:
    if figure.value is None:
        return "unknown"
    return words(figure.value) + _MARKS.get(figure.evidence, "")
