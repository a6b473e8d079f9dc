"""Every failure Edgemill reports, sorted by whose fault it is.

The text of an error says what happened, where, what was expected, what was found and what to do.
`exit_code` is the exit status of the command line.
"""

from __future__ import annotations

from typing import Any


class EdgemillError(Exception):
    """Root of all errors raised on purpose.

    Args:
        what: one sentence, the failure itself.
        where: file, recipe key, layer or step in which it happened.
        expected: what would have been right.
        got: what was found; shown with `repr` unless it is a string.
        remedy: what the reader can do about it.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        got: object = None,
        remedy: str | None = None,
    ) -> None:
        self.what = what
        self.where = where
        self.expected = expected
        self.got = got if got is None or isinstance(got, str) else repr(got)
        self.remedy = remedy
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        for label in ("where", "expected", "got", "remedy"):
            value = getattr(self, label)
            if value is not None:
                lines.append(f"  {label}: {value}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Form in which an error crosses from a child process to its parent."""
        return {"type": type(self).__name__} | {
            label: getattr(self, label) for label in ("what", "where", "expected", "got", "remedy")
        }


class RecipeError(EdgemillError):
    """The recipe or a command-line argument is wrong."""

    exit_code = 2


class CheckpointError(EdgemillError):
    """The checkpoint cannot be read, is unsafe, or cannot do what the recipe asks of it."""

    exit_code = 2


class DataError(EdgemillError):
    """The data cannot be read or does not fit the model."""

    exit_code = 2


class StoreError(EdgemillError):
    """The state folder cannot be written, is full, or holds damaged content."""

    exit_code = 2


class ServiceError(EdgemillError):
    """A server that the run needs (MLflow, Prefect) does not answer."""

    exit_code = 2


class ToolchainError(EdgemillError):
    """A converter, compiler, runtime or child process failed."""


class QualityGateError(EdgemillError):
    """A model is too bad to go on with. Never retried."""

    exit_code = 3


class InvariantError(EdgemillError):
    """Edgemill broke one of its own rules: a bug of ours."""


_BY_NAME: dict[str, type[EdgemillError]] = {
    kind.__name__: kind
    for kind in (
        EdgemillError,
        RecipeError,
        CheckpointError,
        DataError,
        StoreError,
        ServiceError,
        ToolchainError,
        QualityGateError,
        InvariantError,
    )
}


def error_from_dict(record: dict[str, Any]) -> EdgemillError:
    """Inverse of `EdgemillError.to_dict`."""
    fields = dict(record)
    return _BY_NAME[fields.pop("type")](fields.pop("what"), **fields)
