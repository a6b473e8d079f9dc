"""The `edgemill` command. From a checkout it also has the pipeline's subcommands (flows.commands)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from edgemill import __version__
from edgemill.commands.gate import gate
from edgemill.commands.sustain import sustain
from edgemill.commands.sysroot import sysroot
from edgemill.console import guarded, print_json


@click.group()
@click.version_option(__version__, prog_name="edgemill")
def main() -> None:
    """From one training checkpoint to verified models for every edge device."""


@main.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--trust", is_flag=True, help="allow Lambda layers and custom code in the checkpoint to run")
@click.option("--model-function", help="python:module:function that builds the model of a TensorFlow checkpoint")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@guarded
def inspect(checkpoint: Path, trust: bool, model_function: str | None, as_json: bool) -> None:
    """Say what CHECKPOINT is: format, signature, parameters, MACs, and what Edgemill can do with it."""
    from edgemill.execute import execute, release_workers
    from edgemill.ingest.call import ingest_call
    from edgemill.recipe import Checkpoint
    from edgemill.store import Store, state_folder

    store = Store(state_folder())
    settings = Checkpoint(path=str(checkpoint), trust=trust, model_function=model_function)
    record = execute(store, ingest_call(store, settings, None, seed=0), lambda *_: None).record
    release_workers()
    files = {name: f"{output.size_bytes:,} B" for name, output in record.outputs.items()}
    facts = record.facts | {"digest": record.inputs["checkpoint"], "files": files}
    if as_json:
        print_json(facts)
        return
    _print_table([(name, _brief(value)) for name, value in facts.items()])


@main.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@guarded
def targets(name: str | None, as_json: bool) -> None:
    """List the targets, or show everything about one."""
    from edgemill.targets import load_target, target_names

    if name is not None:
        target = load_target(name).model_dump(mode="json")
        print_json(target) if as_json else _print_table([(key, _brief(value)) for key, value in target.items()])
        return
    catalog = [load_target(item) for item in target_names()]
    if as_json:
        print_json([target.model_dump(mode="json") for target in catalog])
        return
    _print_table([(target.name, target.title) for target in catalog])


@main.command()
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@guarded
def doctor(as_json: bool) -> None:
    """Say what is installed here, and what each target lacks."""
    from edgemill.doctor import examine

    report = examine()
    if as_json:
        print_json(report)
        return
    _print_table([(name, version) for name, version in report["packages"].items()])
    click.echo()
    _print_table([(name, version) for name, version in report["emulators"].items()])
    _print_table([(f"sysroot {name}", text) for name, text in report["sysroots"].items()])
    click.echo()
    meters = report["energy_meters"] | {
        name: f"not usable: {why}" for name, why in report["energy_meters_unusable"].items()
    }
    _print_table([(f"energy: {name}", text) for name, text in meters.items()])
    click.echo()
    for name, lacks in report["targets"].items():
        state = "ready" if not lacks else "lacks " + "; ".join(lacks)
        click.echo(f"{name}: {state} (answers {report['answers'][name]})")


@main.command()
@click.argument("subject")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@guarded
def lineage(subject: str, as_json: bool) -> None:
    """Walk from SUBJECT (a digest, its first digits, or a produced file) back to checkpoint and data, and forward."""
    from edgemill.lineage import render, trace
    from edgemill.store import Store, state_folder

    chain = trace(Store(state_folder()), subject)
    print_json(chain.model_dump(mode="json")) if as_json else click.echo(render(chain))


for command in (gate, sustain, sysroot):
    main.add_command(command)


def _print_table(rows: list[tuple[str, str]]) -> None:
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {value}")


def _brief(value: Any) -> str:
    if isinstance(value, str):
        return value
    text = json.dumps(value, default=str)
    return text if len(text) <= 160 else text[:157] + "..."


def _add_pipeline_commands() -> None:
    checkout = Path(__file__).resolve().parents[1]
    if not (checkout / "flows" / "commands.py").exists():
        return
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    from flows.commands import COMMANDS

    for command in COMMANDS:
        main.add_command(command)


_add_pipeline_commands()

if __name__ == "__main__":
    main()
