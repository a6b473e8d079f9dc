"""The float graph that candidates are made of: prepared, repaired and calibrated once, quantized as often as needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from edgemill.data.dataset import Dataset
from edgemill.errors import ToolchainError
from edgemill.quantize import MixedSettings
from edgemill.quantize.calibrate import find_ranges, plan_calibration
from edgemill.quantize.calibrators.extremes import Range
from edgemill.quantize.calibrators.memory import Plan
from edgemill.quantize.mixed.groups import Group, find_groups, name_nodes
from edgemill.quantize.static import prepare, quantize_graph, repair_after, repair_before
from edgemill.recipe import Repair
from edgemill.step import StepContext

_SLOW = {Repair.ADAROUND}


@dataclass(frozen=True)
class Source:
    """A float graph with everything that quantizing parts of it needs.

    Attributes:
        path: fp32 ONNX, prepared and with the repairs of float graphs.
        model: the same, loaded.
        groups: its operators that can be int8.
        ranges: of its activations.
        how: its calibration went.
        repairs: records of the repairs that were made.
    """

    path: Path
    model: onnx.ModelProto
    groups: tuple[Group, ...]
    ranges: dict[str, Range]
    how: Plan
    repairs: list[dict[str, Any]]
    settings: MixedSettings
    data: Dataset
    context: StepContext

    def write(self, path: Path, leave: Sequence[str] = (), only: Sequence[str] | None = None) -> None:
        """Write a QDQ graph without the repairs of QDQ graphs.

        Args:
            path: file to write.
            leave: names of operators that stay float.
            only: names of the operators that are int8; None for all others.
        """
        quantize_graph(self.path, path, self.ranges, self.settings, only, leave)

    def repair(self, path: Path, *, quick: bool) -> list[dict[str, Any]]:
        """Apply the repairs of QDQ graphs in a file that `write` wrote; `quick`: all but those that train."""
        repairs = tuple(item for item in self.settings.repair if not (quick and item in _SLOW))
        settings = self.settings.model_copy(update={"repair": repairs})
        quiet = replace(self.context, report=lambda fraction, message: None)
        return repair_after(path, self.path, self.data, self.how, settings, quiet)


def read(settings: MixedSettings, source: Path, data: Dataset, folder: Path, context: StepContext) -> Source:
    """Prepare, repair and calibrate a float graph.

    Args:
        settings: arithmetic, calibration and repairs.
        source: fp32 ONNX.
        data: the calibration split is used.
        folder: for the prepared file.
        context: seed; progress up to 0.2.

    Raises:
        DataError: the calibration split is empty or makes an activation infinite.
        ToolchainError: onnxruntime fails, or nothing in the graph can be int8.
    """

    def report(fraction: float | None, message: str) -> None:
        context.report(0.2 * (fraction or 0.0), message)

    prepared = folder / "prepared.onnx"
    prepare(source, prepared)
    method = settings.calibration
    how = plan_calibration(prepared, data, method, settings.batch_size, settings.calibration_memory_bytes)
    repairs = repair_before(prepared, data, how, settings, report)
    model = onnx.load(str(prepared))
    if name_nodes(model):
        onnx.save(model, str(prepared))
    groups = find_groups(model)
    if not groups:
        raise ToolchainError(
            "No operator of the model has an int8 form.",
            where=source.name,
            got=", ".join(sorted({node.op_type for node in model.graph.node})) or "an empty graph",
            remedy="use fp16, or leave this model in fp32",
        )
    ranges = find_ranges(prepared, data, method, settings.percentile, how, report)
    return Source(prepared, model, groups, ranges, how, repairs, settings, data, context)
