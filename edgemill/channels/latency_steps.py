"""Step `channels.layer_latency`: time of layers over a grid of channel counts, in the target's runtime.

Declaration and settings only; light to import.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from edgemill.artifact import Frozen
from edgemill.channels.cost import Kind, LayerShape, Padding
from edgemill.step import Step
from edgemill.targets.spec import Int8Arithmetic

RuntimeName = Literal["onnxruntime", "ai-edge-litert"]

GRANULE = 4
"""Channel counts between which a table is asked. onnxruntime has no fast kernel for others (see `MULTIPLES`)."""
_BLOCK = 16
_DENSE = 4
_GROWTH = 1.3

MULTIPLES: dict[str, int] = {"onnxruntime": 16, "ai-edge-litert": 16}
"""Output channels that a runtime's int8 kernels compute together, so that fewer cost the same.

Measured by `python -m benchmarks.layer_latency` on x86-64 with AVX512-VNNI, 3x3 and 1x1 convolutions: both
runtimes' times have a step after every 16th output channel and are flat in between. Input channels cost in
steps of 8 (LiteRT) and 4 (onnxruntime); onnxruntime takes up to 2.5 times as long for a count that is no
multiple of 4, and also below 16 output channels.
"""


def channels_multiple(runtime: str) -> int:
    """Multiple of channels that a runtime's int8 kernels like; 8 for a runtime that was not measured."""
    return MULTIPLES.get(runtime, 8)


class Geometry(Frozen):
    """A layer without its channel counts.

    Fields are those of `LayerShape`; `multiplier` is outputs / inputs of a depthwise layer, else 1.
    """

    kind: Kind
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: Padding
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    dilation: tuple[int, int] = (1, 1)
    multiplier: int = Field(1, gt=0)

    @classmethod
    def of(cls, shape: LayerShape) -> Geometry:
        """Geometry of a layer."""
        return cls(
            kind=shape.kind,
            kernel=shape.kernel,
            strides=shape.strides,
            padding=shape.padding,
            height=shape.height,
            width=shape.width,
            dilation=shape.dilation,
            multiplier=max(1, shape.outputs // max(1, shape.inputs)) if shape.kind == "depthwise" else 1,
        )

    def shape(self, inputs: int, outputs: int) -> LayerShape:
        """A layer of this geometry."""
        return LayerShape(
            self.kind,
            inputs,
            outputs,
            self.kernel,
            self.strides,
            self.padding,
            self.height,
            self.width,
            self.dilation,
        )


class LayerGrid(Frozen):
    """A geometry and the channel counts at which it is measured.

    A depthwise layer has one axis only: `inputs`; its `outputs` are empty.
    """

    geometry: Geometry
    inputs: tuple[int, ...] = Field(min_length=1)
    outputs: tuple[int, ...] = ()

    def points(self) -> list[tuple[int, int]]:
        """All pairs of (inputs, outputs)."""
        if self.geometry.kind == "depthwise":
            return [(count, count * self.geometry.multiplier) for count in self.inputs]
        return [(before, after) for before in self.inputs for after in self.outputs]


class GeometrySettings(Frozen):
    """Settings of `channels.geometry`: there are none."""


GEOMETRY = Step(
    name="channels.geometry",
    version=1,
    body="edgemill.channels.list_layers:run",
    framework="tensorflow",
    tools=("tensorflow", "tf-keras"),
)
"""Inputs `keras`, `data`; fact `layers`: the shapes for `measuring_plan`."""


class LayerLatencySettings(Frozen):
    """Settings of `channels.layer_latency`."""

    runtime: RuntimeName
    int8: Int8Arithmetic = Field(description="integer types of the target; LiteRT has int8 only")
    layers: tuple[LayerGrid, ...] = Field(description="what is measured")
    threads: int = Field(1, gt=0, description="threads of the runtime, as in the benchmark")


LAYER_LATENCY = Step(
    name="channels.layer_latency",
    version=1,
    body="edgemill.channels.latency_measure:run",
    tools=("onnxruntime", "ai-edge-litert", "flatbuffers", "numpy", "onnx"),
    exclusive=True,
    varies="it measures, and no two measurements are equal",
    time_limit_s=1800.0,
)
"""No inputs; settings: LayerLatencySettings; output `table` (JSON, see `latency_table.LatencyTable`).

The times hold on one machine, so its call needs `extra={"host": fingerprint_digest()}`. Of the target only the
runtime and the integer types matter, and they are settings, so targets that share them share the table.
"""


def measuring_plan(shapes: Iterable[LayerShape]) -> tuple[LayerGrid, ...]:
    """What must be measured to know the time of these layers at any lower channel counts.

    Args:
        shapes: layers at their largest channel counts; equal geometries share a grid.
    """
    largest: dict[Geometry, tuple[set[int], set[int]]] = {}
    for shape in shapes:
        inputs, outputs = largest.setdefault(Geometry.of(shape), (set(), set()))
        inputs |= channel_grid(shape.inputs)
        outputs |= channel_grid(shape.outputs)
    return tuple(
        LayerGrid(
            geometry=geometry,
            inputs=tuple(sorted(inputs)),
            outputs=() if geometry.kind == "depthwise" else tuple(sorted(outputs)),
        )
        for geometry, (inputs, outputs) in largest.items()
    )


def channel_grid(count: int) -> set[int]:
    """Channel counts to measure up to `count`.

    Kernels compute whole blocks of channels, so time rises in steps: there is a point at the end of every
    block of 16 and one behind it, up to four blocks; further on the steps are small beside the whole and the
    points lie about 30 % apart. `count` itself is always there.
    """
    points = {count}
    block = _BLOCK
    small = {GRANULE, _BLOCK // 2} | {
        edge + more for edge in range(block, block * _DENSE + 1, block) for more in (0, 4)
    }
    points |= {point for point in small if point < count}
    edge = float(block * _DENSE)
    while edge < count:
        edge = max(edge + block, edge * _GROWTH // block * block)
        if edge < count:
            points.add(int(edge))
    return points
