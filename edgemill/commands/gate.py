"""`edgemill gate`: hold any model file against a checkpoint, for CI."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgemill.console import guarded, print_json

if TYPE_CHECKING:
    from edgemill.gate.report import GateReport


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="folder for gate.xml (JUnit), gate.md and gate.json")
@click.option("--target", metavar="NAME", help="answer in the arithmetic of this target, emulated if need be")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="override a key of the recipe")
@click.option("--json", "as_json", is_flag=True, help="print the report as JSON on standard output")
@guarded
def gate(
    recipe: Path, model: Path, out: Path | None, target: str | None, overrides: tuple[str, ...], as_json: bool
) -> None:
    """Run the gates of RECIPE on MODEL (ONNX or TFLite, made by whatever tool) against the recipe's checkpoint.

    Exit status: 0 PASS; 3 FAIL or INCONCLUSIVE; 2 bad input; 1 anything else.
    """
    from edgemill.execute import release_workers
    from edgemill.gate.check import check_model
    from edgemill.gate.junit import render_junit
    from edgemill.gate.markdown import render_markdown
    from edgemill.recipe import load_recipe
    from edgemill.store import Store, state_folder, storage_error, write_atomically
    from edgemill.targets import load_target

    chosen = [part for item in overrides for part in ("--set", item)] + (["--target", target] if target else [])
    command = shlex.join(["edgemill", "gate", str(recipe), str(model), *chosen])
    device = None if target is None else load_target(target)
    store = Store(state_folder())
    try:
        report = check_model(store, load_recipe(recipe, overrides), model, device, command, _tell)
    finally:
        release_workers()
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
            write_atomically(out / "gate.xml", render_junit(report))
            write_atomically(out / "gate.md", render_markdown(report))
            write_atomically(out / "gate.json", report.model_dump_json(indent=1))
        except OSError as error:
            raise storage_error(error, out) from error
    print_json(report.model_dump(mode="json")) if as_json else _show(report)
    sys.exit(report.exit_code)


def _tell(fraction: float | None, message: str) -> None:
    if fraction is None:
        click.echo(message, err=True)


def _show(report: GateReport) -> None:
    from edgemill.validate.words import interval_text

    colours = {"PASS": "green", "FAIL": "red"}
    width = max(len(check.gate) for check in report.checks)
    for check in report.checks:
        verdict = click.style(f"{check.verdict:<12}", fg=colours.get(check.verdict, "yellow"))
        click.echo(f"{verdict}  {check.gate:<{width}}  {interval_text(check)}, n {check.n:,}")
        if not check.passed:
            click.echo(f"{'':<12}  {check.reason}")
    click.echo(f"{report.model}: {report.verdict}, {report.samples:,} test samples, answers {report.source}")
