"""How far the answers of a model on a target are from those of exact arithmetic: declaration, result, text."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, FiniteFloat

from edgemill.artifact import Frozen
from edgemill.data.dataset import SplitName
from edgemill.emulate.machine import Machine
from edgemill.step import Step

DIVERGENCE = Step(
    name="validate.divergence",
    version=1,
    body="edgemill.validate.divergence_step:run",
    tools=("onnxruntime", "ai-edge-litert", "onnx", "numpy"),
    time_limit_s=3600.0,
)
"""inputs: model, data; settings: DivergenceSettings; no files; facts: Divergence."""

ROUNDING = 1e-4
"""Largest difference, relative to the range of the reference, that floats may have by rounding alone."""


class DivergenceSettings(Frozen):
    """Settings of `validate.divergence`."""

    machine: Machine = Field(description="in whose arithmetic the target answers; see how_executed")
    split: SplitName = Field(SplitName.VALIDATION, description="never the test split: what is seen here is acted on")
    samples: int = Field(256, gt=0, description="first samples of the split that are compared")
    traced: int = Field(8, ge=0, description="of these, how many are followed through the layers where outputs part")
    threads: int = Field(1, gt=0, description="threads of the runtime")


class Closeness(StrEnum):
    """How alike two machines answer."""

    EQUAL = "equal"
    """Bit for bit."""
    ROUNDING = "rounding"
    """The same choices, and numbers that differ as floats do that were added in another order."""
    PARTED = "parted"
    """Anything beyond that."""


class Difference(Frozen):
    """Two arrays of the same shape, a row a sample, compared element by element."""

    closeness: Closeness
    max_abs: FiniteFloat = Field(description="largest absolute difference, in the unit of the values")
    max_relative: FiniteFloat = Field(description="the same as a share of the reference's range")
    max_ulp: int | None = Field(
        description="largest distance in float32 numbers; of float16 in float16 numbers; None for integers"
    )
    equal_rows: FiniteFloat = Field(description="share of rows that are equal bit for bit")
    not_finite: int = Field(description="values that are finite on one machine only")
    agreement: FiniteFloat | None = Field(description="share of rows with equal argmax; None below two values a row")


class Layer(Frozen):
    """The first tensor, in order of calculation, in which reference and target part."""

    tensor: str
    operator: str = Field(description="that calculates it, e.g. QLinearConv")
    index: int = Field(ge=0, description="place among the traced tensors")
    dtype: str
    difference: Difference


class Divergence(Frozen):
    """Reference against target on the same samples.

    The reference is this host with exact 8-bit products (`edgemill.emulate.machine.reference`): what every
    CPU answers whose sums do not saturate. A host that saturates as the target does is found out too.
    """

    reference: str = Field(description="identity of the machine that was compared with")
    target: str = Field(description="identity of the machine that answers for the target")
    source: str = Field(description="provenance of the target's answers")
    samples: int
    output: Difference
    first: Layer | None = Field(description="None where outputs are equal, or no tensor could be traced")
    traced: int = Field(ge=0, description="intermediate tensors that were compared; 0: not looked")
    faithful: bool | None = Field(
        description="whether tracing left the outputs as they were, on both machines; None: not looked"
    )
    note: str = ""

    @property
    def close(self) -> bool:
        """Equal, or different by the rounding of floats only."""
        return self.output.closeness is not Closeness.PARTED


def render(divergence: Divergence) -> str:
    """A few lines for people."""
    out = divergence.output
    lines = [
        f"reference  {divergence.reference}",
        f"target     {divergence.target} ({divergence.source})",
        f"samples    {divergence.samples}, {out.equal_rows:.1%} equal bit for bit"
        + ("" if out.agreement is None else f", {out.agreement:.2%} with the same answer"),
        f"outputs    {out.closeness}: largest difference {out.max_abs:.4g} ({out.max_relative:.2g} of the range"
        + (f", {out.max_ulp:,} ULP)" if out.max_ulp is not None else ")"),
    ]
    if out.not_finite:
        lines.append(f"           {out.not_finite} values are finite on one of them only")
    if divergence.first is not None:
        first = divergence.first
        lines.append(
            f"parts at   {first.operator} {first.tensor} (tensor {first.index + 1} of {divergence.traced}, "
            f"{first.dtype}): up to {first.difference.max_abs:.4g}"
        )
    if divergence.note:
        lines.append(f"note       {divergence.note}")
    return "\n".join(lines)
