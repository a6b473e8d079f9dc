"""What a source gives: arrays in one or more parts, and where they came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.data.dataset import SplitName
from edgemill.errors import DataError, EdgemillError, ToolchainError

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Part:
    """Samples that belong together.

    Attributes:
        x: (N, *sample_shape) as stored.
        y: (N, ...) or None where the source has no labels.
        where: file or function they came from, for error texts.
    """

    x: Array
    y: Array | None
    where: str


@dataclass(frozen=True)
class Source:
    """All parts of a source.

    Attributes:
        parts: `train` always; the other splits where the source itself separates them.
        facts: further knowledge as JSON values, e.g. `class_names`.
    """

    parts: Mapping[SplitName, Part]
    facts: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def decoding(path: Path, accepted: str) -> Iterator[None]:
    """Turn whatever a decoder of foreign bytes raises into a DataError that names the file."""
    try:
        yield
    except EdgemillError:
        raise
    except ImportError as error:
        raise ToolchainError(
            "A package that reads this source is not installed.",
            got=str(error),
            remedy="pip install edgemill[pipeline]",
        ) from error
    # Damaged files make numpy, zlib, PIL and Arrow raise nearly every builtin exception.
    except Exception as error:
        raise DataError(
            "The file cannot be read.",
            where=str(path),
            expected=accepted,
            got=f"{type(error).__name__}: {error}",
            remedy="check that it is complete and of the format that data.source names",
        ) from error
