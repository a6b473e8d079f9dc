"""The `edgemill` command. From a checkout it also has the pipeline's subcommands (flows.commands)."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edgemill import __version__
from edgemill.commands.advise import advise
from edgemill.commands.device import device
from edgemill.commands.doctor import doctor
from edgemill.commands.gate import gate
from edgemill.commands.sustain import sustain
from edgemill.commands.sysroot import sysroot
from edgemill.commands.targets import targets
from edgemill.console import brief, guarded, print_json, print_table


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
    print_table([(name, brief(value)) for name, value in facts.items()])


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


for command in (advise, device, doctor, gate, sustain, sysroot, targets):
    main.add_command(command)


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
