"""`edgemill lineage` with MLflow at hand: a run's id is a subject too."""

from __future__ import annotations

import re

import click

from edgemill.console import guarded, print_json
from edgemill.errors import RecipeError
from edgemill.lineage import Lineage, render, trace
from edgemill.store import Store, state_folder

_RUN_ID = re.compile(r"[0-9a-f]{32}")


@click.command()
@click.argument("subject")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@guarded
def lineage(subject: str, as_json: bool) -> None:
    """Walk from SUBJECT back to checkpoint and data, and forward to all that was made from it.

    SUBJECT is a digest, its first digits, a produced file, or the id of an MLflow run: a child run
    stands for its compiled file, a parent run for its checkpoint.
    """
    chain = _trace(Store(state_folder()), subject)
    print_json(chain.model_dump(mode="json")) if as_json else click.echo(render(chain))


def _trace(store: Store, subject: str) -> Lineage:
    try:
        return trace(store, subject)
    except RecipeError:
        if not _RUN_ID.fullmatch(subject):
            raise
    from tasks.history import digest_of_run

    return trace(store, digest_of_run(subject))
