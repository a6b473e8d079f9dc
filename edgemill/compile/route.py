"""The seam between number formats and targets: how a model becomes a file that a backend compiles.

A backend says by which quantize step a candidate reaches it, and with which settings, or why it
cannot. It decides from the forms in which the model is at hand and from the target's arithmetic;
nothing is imported and nothing runs here.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import BaseModel

from edgemill.recipe import Recipe, Scheme
from edgemill.step import Step
from edgemill.targets.spec import Target


@dataclass(frozen=True)
class Route:
    """How a candidate gets its number format.

    Attributes:
        step: the quantize step; None where the model is compiled as it is.
        settings: settings of the step; None without a step.
        inputs: for every input of the step, what goes in: a form of the model (onnx, keras,
            saved_model, tflite), `data`, or `teacher` (the checkpoint's fp32 ONNX).
        output: the output of the step that is compiled; without a step, the form that is.
    """

    step: Step | None
    settings: BaseModel | None
    inputs: Mapping[str, str] = field(default_factory=dict)
    output: str = "onnx"


@dataclass(frozen=True)
class Refusal:
    """Why a candidate cannot reach a target, and what would help."""

    reason: str
    remedy: str


class Backend(Protocol):
    """A way to make files for targets. One module each, and one entry in the table of `edgemill.compile.backend`."""

    name: str
    step: Step
    """The compile step: inputs `model` and `data`, settings `CompileSettings`, output `model`.

    An output `executable` is what answers for `model` where that cannot run here itself. For targets that are
    not timed the facts have `device` (`DeviceFigures`).
    """
    probed: bool
    """Whether files are compared with exact arithmetic, layer by layer, where the target's is another."""

    def route(self, scheme: Scheme | None, available: Set[str], target: Target, recipe: Recipe) -> Route | Refusal:
        """How a model gets into a number format for a target.

        Args:
            scheme: the number format; None for fp32.
            available: forms in which the model is at hand.
            target: a target of this backend.
            recipe: settings of calibration and of quantization-aware training.
        """


def unsupported(scheme: Scheme | None, target: Target) -> Refusal | None:
    """The refusal of a format that the target does not run, if it does not."""
    if (scheme or "fp32") in target.formats:
        return None
    return Refusal(
        reason=f"{target.name} does not run {scheme or 'fp32'}",
        remedy=f"choose among {', '.join(target.formats)}",
    )
