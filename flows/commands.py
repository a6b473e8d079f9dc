"""The pipeline's subcommands of `edgemill`. Prefect and MLflow are imported only when one runs."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import click

from edgemill.console import guarded, print_json
from flows.lineage import lineage
from flows.readiness import skip_unready
from flows.reproduce import reproduce


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="folder for summary.json, report.html and bundles/")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="override a key of the recipe")
@click.option("--strict", is_flag=True, help="stop where a target lacks something here, instead of skipping it by name")
@click.option("--json", "as_json", is_flag=True, help="print the summary as JSON on standard output")
@guarded
def optimize(recipe: Path, out: Path | None, overrides: tuple[str, ...], strict: bool, as_json: bool) -> None:
    """Compress the checkpoint of RECIPE for all its targets and gate what comes out.

    Exit status: 0 every target that can be tried here has a passing variant; 3 some has none; 2 bad input;
    1 anything else.
    """
    from edgemill.recipe import load_recipe
    from edgemill.recipe.check import check_recipe
    from edgemill.store import Store, state_folder

    parsed = load_recipe(recipe, overrides)
    check_recipe(parsed)
    Store(state_folder())  # a full or read-only disk is said before anything starts
    skip_unready(parsed, strict=strict)  # so is what lacks

    # our own display shows the steps; Prefect keeps its log for its pages
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")

    from rich.console import Console

    from flows.display import display
    from flows.optimize import run_from_command_line

    console = Console(stderr=True)
    command = shlex.join(
        ["edgemill", "optimize", str(recipe), *(part for item in overrides for part in ("--set", item))]
    )
    with display(console):
        summary, folder = run_from_command_line(parsed, out, command, strict)
    if as_json:
        print_json(summary.model_dump(mode="json"))
    else:
        from edgemill.report.terminal import render_terminal

        output = Console()
        output.print(render_terminal(summary))
        output.print(f"report   {folder / 'report.html'}", highlight=False, soft_wrap=True)
        output.print(f"summary  {folder / 'summary.json'}", highlight=False, soft_wrap=True)
        for title, link in summary.links.items():
            output.print(f"{title:<8} {link}", highlight=False, soft_wrap=True)
    sys.exit(summary.exit_code)


@click.command()
@click.option("--prefect-port", default=4200, show_default=True)
@click.option("--mlflow-port", default=5000, show_default=True)
@guarded
def up(prefect_port: int, mlflow_port: int) -> None:
    """Start the Prefect and MLflow servers and a worker that serves the deployments; Ctrl-C stops all."""
    from flows.services import serve

    serve(prefect_port, mlflow_port)


COMMANDS = (optimize, up, reproduce, lineage)
