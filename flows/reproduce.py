"""`edgemill reproduce`: a recorded run again, in a state folder of its own, and what came out the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from edgemill.boards.inventory import INVENTORY, inventory_path
from edgemill.console import guarded, print_json
from edgemill.emulate.places import SYSROOTS, sysroots_folder
from edgemill.errors import RecipeError, ToolchainError
from edgemill.guard import watch
from edgemill.ledger import read_ledger
from edgemill.recipe import load_recipe
from edgemill.reproduce import Change, Comparison, changes, compare, render, selected_files
from edgemill.summary import EXIT_TARGET_WITHOUT_VARIANT
from edgemill.toolchains.places import FOLDER, toolchains_folder

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_EXIT_DIFFERS = 3


@click.command()
@click.argument("run")
@click.option("--keep", type=click.Path(path_type=Path), help="empty or new folder for the repetition; kept")
@click.option("--anyway", is_flag=True, help="go on where versions or the machine are not as recorded")
@click.option("--json", "as_json", is_flag=True, help="print the comparison as JSON on standard output")
@guarded
def reproduce(run: str, keep: Path | None, anyway: bool, as_json: bool) -> None:
    """Repeat RUN (an output folder, or the id of an MLflow run) and compare every deterministic step.

    Exit status: 0 the same; 3 something differs; 2 bad input, or what the run started from has changed.
    """
    with _folder(None) as fetched, _folder(keep) as repetition:
        recorded = _find(run, fetched)
        entries = read_ledger(recorded)
        recipe = load_recipe(recorded / "recipe.yaml")
        _refuse(changes(recorded, recipe, entries), anyway)
        out = repetition / "out"
        _repeat(recorded / "recipe.yaml", repetition / "state", out)
        before, after = selected_files(recorded), selected_files(out)
        selected = {target: (before.get(target), after.get(target)) for target in {**before, **after}}
        comparison = compare(entries, read_ledger(out), selected)
    _show(comparison, as_json)
    sys.exit(0 if comparison.same else _EXIT_DIFFERS)


def _find(run: str, fetched: Path) -> Path:
    path = Path(run)
    if path.is_dir():
        return path.absolute()
    if _RUN_ID.fullmatch(run):
        from tasks.history import fetch_run

        return fetch_run(run, fetched)
    raise RecipeError(
        "There is no such run.",
        where=run,
        expected="an output folder with recipe.yaml, summary.json and steps.json, or the id of an MLflow run",
    )


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is None:
        with tempfile.TemporaryDirectory(prefix="edgemill-reproduce-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)
        return
    if kept.exists() and (not kept.is_dir() or any(kept.iterdir())):
        raise RecipeError("The folder for the repetition is not empty.", where=str(kept), remedy="give another one")
    kept.mkdir(parents=True, exist_ok=True)
    yield kept.absolute()


def _refuse(found: Sequence[Change], anyway: bool) -> None:
    lines = [f"{item.what}: recorded {item.recorded}, here {item.found}" for item in found]
    if any(item.content for item in found) or (found and not anyway):
        content = any(item.content for item in found)
        raise RecipeError(
            "What the run started from is not the same any more.",
            expected="checkpoint, data, versions and machine as recorded",
            got="; ".join(lines),
            remedy="bring back the recorded content" if content else "install what was recorded, or add --anyway",
        )
    for line in lines:
        click.echo(f"edgemill: going on although this changed: {line}", err=True)


def _repeat(recipe: Path, state: Path, out: Path) -> None:
    """Run the recipe by the real command, without any server, and with its progress on standard error.

    The state folder is new; what is installed for all runs stays where it is.
    """
    watch()
    places = {FOLDER: toolchains_folder(), SYSROOTS: sysroots_folder(), INVENTORY: inventory_path()}
    others = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    done = subprocess.run(
        [sys.executable, "-m", "edgemill.cli", "optimize", str(recipe), "--out", str(out), "--json"],
        env=others | {name: str(path) for name, path in places.items()} | {"EDGEMILL_HOME": str(state)},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode not in (0, EXIT_TARGET_WITHOUT_VARIANT):
        raise ToolchainError(
            "The repetition did not finish.",
            where=str(recipe),
            got=f"exit status {done.returncode}",
            remedy="its own message stands above",
        )


def _show(comparison: Comparison, as_json: bool) -> None:
    if as_json:
        print_json(comparison.model_dump(mode="json") | {"same": comparison.same})
    else:
        click.echo(render(comparison))
