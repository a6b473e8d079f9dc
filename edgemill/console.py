"""What all subcommands share: readable failures and JSON."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import click

from edgemill.errors import EdgemillError, InvariantError

P = ParamSpec("P")
R = TypeVar("R")


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Turn our errors into one message on standard error and their exit status."""

    @wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except EdgemillError as error:
            if isinstance(error, InvariantError):
                traceback.print_exc()  # a bug of ours: whoever mends it needs to see where
            click.echo(f"edgemill: {error}", err=True)
            raise SystemExit(error.exit_code) from None
        except KeyboardInterrupt:
            click.echo("edgemill: stopped; finished steps are kept and the next run goes on from there", err=True)
            raise SystemExit(130) from None

    return wrapper


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Write rows of equally many cells in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())


def brief(value: Any) -> str:
    """A value on one line, cut where it is long."""
    if isinstance(value, str):
        return value
    text = json.dumps(value, default=str)
    return text if len(text) <= 160 else text[:157] + "..."


def print_json(value: Any) -> None:
    """Write a JSON value to standard output for other programs."""
    click.echo(json.dumps(value, indent=1, sort_keys=True, default=str))
