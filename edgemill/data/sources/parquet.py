"""Parquet tables: one column a feature, or one list column of whole samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgemill.data.dataset import SplitName
from edgemill.data.digest import existing_path
from edgemill.data.options import ParquetOptions, parse_options
from edgemill.data.source import Array, Part, Source, decoding
from edgemill.errors import DataError
from edgemill.recipe import Data

_ACCEPTED = "a Parquet file"


def read(data: Data) -> Source:
    """Read a file, or a folder: train.parquet (and test.parquet), else all its *.parquet files in name order.

    Raises:
        DataError: a file is damaged, a column is missing, not numeric, or has empty cells.
    """
    path = existing_path(data)
    options: ParquetOptions = parse_options(data, ParquetOptions)
    if not path.is_dir():
        return Source({SplitName.TRAIN: _part([path], options)})
    if (path / "train.parquet").is_file():
        parts = {SplitName.TRAIN: _part([path / "train.parquet"], options)}
        if (path / "test.parquet").is_file():
            parts[SplitName.TEST] = _part([path / "test.parquet"], options)
        return Source(parts)
    files = sorted(path.glob("*.parquet"))
    if not files:
        raise DataError("The folder has no Parquet files.", where=str(path), expected="*.parquet")
    return Source({SplitName.TRAIN: _part(files, options)})


def _part(files: list[Path], options: ParquetOptions) -> Part:
    pieces = [_file(path, options) for path in files]
    shapes = {x.shape[1:] for x, _ in pieces}
    if len(shapes) > 1:
        raise DataError(
            "The Parquet files differ in their samples' shape.", where=str(files[0].parent), got=str(shapes)
        )
    x = np.concatenate([x for x, _ in pieces])
    labels = [y for _, y in pieces if y is not None]
    return Part(x, np.concatenate(labels) if labels else None, str(files[0] if len(files) == 1 else files[0].parent))


def _file(path: Path, options: ParquetOptions) -> tuple[Array, Array | None]:
    with decoding(path, _ACCEPTED):
        import pyarrow.parquet as pq

        table: Any = pq.ParquetFile(path).read()
        label = options.label_column
        features = options.feature_columns or tuple(name for name in table.column_names if name != label)
        missing = [name for name in (*features, *(() if label is None else (label,))) if name not in table.column_names]
        if missing or not features:
            raise DataError(
                "The table lacks columns.",
                where=str(path),
                expected=", ".join(missing) or "at least one feature column",
                got=", ".join(table.column_names),
                remedy="correct data.options.label_column and data.options.feature_columns",
            )
        columns = [_column(table, name, path) for name in features]
        x = columns[0] if len(columns) == 1 and columns[0].ndim > 1 else _stack(columns, features, path)
        if options.shape is not None:
            if int(np.prod(options.shape)) != int(np.prod(x.shape[1:])):
                raise DataError(
                    "The samples do not have the shape that the recipe says.",
                    where=str(path),
                    expected=f"data.options.shape {list(options.shape)}",
                    got=f"{int(np.prod(x.shape[1:]))} numbers a sample",
                )
            x = x.reshape(len(x), *options.shape)
        return x, None if label is None else _column(table, label, path)


def _stack(columns: list[Array], names: tuple[str, ...], path: Path) -> Array:
    for name, column in zip(names, columns, strict=True):
        if column.ndim > 1:
            raise DataError("A list column cannot stand beside others.", where=f"{path}, column {name}")
    return np.stack(columns, axis=1)


def _column(table: Any, name: str, path: Path) -> Array:
    import pyarrow as pa

    column = table.column(name)
    where = f"{path}, column {name}"
    if column.null_count:
        raise DataError("The column has empty cells.", where=where, got=f"{column.null_count} of {len(column)}")
    array = column.combine_chunks()
    shape = []
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        if array.null_count:
            raise DataError("The column has empty cells.", where=where, got=f"{array.null_count} inside its lists")
        lengths = {len(item) for item in array}
        if len(lengths) > 1:
            raise DataError(
                "The lists have several lengths.", where=where, got=", ".join(map(str, sorted(lengths)[:8]))
            )
        shape.append(lengths.pop() if lengths else 0)
        array = array.flatten()
    if array.null_count:
        raise DataError("The column has empty cells.", where=where, got=f"{array.null_count} inside its lists")
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_boolean(array.type)):
        raise DataError(
            "The column does not hold numbers.",
            where=where,
            got=str(array.type),
            remedy="encode it as numbers, or leave it out of data.options.feature_columns",
        )
    numbers: Array = array.to_numpy(zero_copy_only=False)
    return numbers.reshape(len(column), *shape)
