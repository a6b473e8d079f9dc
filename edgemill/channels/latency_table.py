"""Measured times of layers, and what lies between the measured channel counts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.artifact import canonical_json
from edgemill.channels.cost import LayerShape
from edgemill.channels.latency_steps import Geometry, LayerGrid
from edgemill.errors import InvariantError, StoreError


@dataclass(frozen=True)
class Measured:
    """Times of one geometry.

    Attributes:
        grid: channel counts.
        us: microseconds, float64 (len(inputs), len(outputs)); (len(inputs), 1) for a depthwise layer.
        spread: of each point, (slowest - fastest) / slowest over its passes, same shape: how disturbed it was.
    """

    grid: LayerGrid
    us: NDArray[np.float64]
    spread: NDArray[np.float64]


class LatencyTable:
    """Times of layers in one runtime on one machine.

    Args:
        layers: one entry per geometry.
        runtime: name and version.
        call_us: what a call costs before its first layer; not in the layers' times.
    """

    def __init__(self, layers: Sequence[Measured], runtime: str, call_us: float) -> None:
        self.layers = tuple(layers)
        self.runtime = runtime
        self.call_us = call_us
        self._found: Mapping[Geometry, Measured] = {layer.grid.geometry: layer for layer in layers}

    def microseconds(self, shape: LayerShape) -> float:
        """Time of one layer: measured, or interpolated bilinearly between the four points around it.

        Times need not rise with the channels. Below the smallest measured count the time of that one holds,
        because kernels compute whole blocks of channels.

        Raises:
            InvariantError: the table has no such geometry, or not so many channels.
        """
        geometry = Geometry.of(shape)
        layer = self._found.get(geometry)
        if layer is None:
            raise InvariantError(
                "The latency table has no layer of this geometry.",
                where=self.runtime,
                got=str(geometry),
                remedy="measure it: give every layer of the model to `measuring_plan`",
            )
        rows = _between(layer.grid.inputs, shape.inputs, geometry)
        columns = [(0, 1.0)] if geometry.kind == "depthwise" else _between(layer.grid.outputs, shape.outputs, geometry)
        return float(sum(layer.us[i, j] * a * b for i, a in rows for j, b in columns))

    def write(self, path: Path) -> None:
        """Write as JSON."""
        record: dict[str, Any] = {
            "runtime": self.runtime,
            "call_us": self.call_us,
            "layers": [
                {
                    "grid": layer.grid.model_dump(mode="json"),
                    "us": np.round(layer.us, 4).tolist(),
                    "spread": np.round(layer.spread, 4).tolist(),
                }
                for layer in self.layers
            ],
        }
        path.write_text(canonical_json(record) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> LatencyTable:
        """Inverse of `write`.

        Raises:
            StoreError: the file is no latency table.
        """
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            layers = [_layer(entry) for entry in record["layers"]]
            return cls(layers, str(record["runtime"]), float(record["call_us"]))
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise StoreError(
                "The latency table cannot be read.", where=str(path), got=f"{type(error).__name__}: {error}"[:300]
            ) from error

    @classmethod
    def together(cls, tables: Sequence[LatencyTable]) -> LatencyTable:
        """One table of several of the same runtime; of equal geometries the later one counts."""
        layers = {layer.grid.geometry: layer for table in tables for layer in table.layers}
        return cls(list(layers.values()), tables[-1].runtime, tables[-1].call_us)


def _layer(entry: Any) -> Measured:
    grid = LayerGrid.model_validate(entry["grid"])
    size = (len(grid.inputs), max(1, len(grid.outputs)))
    us, spread = (np.array(entry[name], np.float64) for name in ("us", "spread"))
    if us.shape != size or spread.shape != size or not np.isfinite(us).all() or (us < 0).any():
        raise ValueError(f"{size[0]} x {size[1]} finite times of at least 0 are wanted, found {us.shape}")
    return Measured(grid, us, spread)


def _between(points: Sequence[int], count: int, geometry: Geometry) -> list[tuple[int, float]]:
    """The measured points around a count with their shares."""
    if count > points[-1]:
        raise InvariantError(
            "The latency table does not reach this channel count.",
            where=str(geometry),
            expected=f"at most {points[-1]}",
            got=count,
        )
    if count <= points[0]:
        return [(0, 1.0)]
    above = int(np.searchsorted(points, count))
    low, high = points[above - 1], points[above]
    share = (count - low) / (high - low)
    return [(above, 1.0)] if share == 1 else [(above - 1, 1 - share), (above, share)]
