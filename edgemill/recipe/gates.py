"""What compression may cost."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from edgemill.recipe.section import FUNCTION, Section


class Budget(Section):
    """What compression may cost."""

    max_accuracy_drop: float = Field(
        0.005,
        gt=0,
        description="non-inferiority margin: largest drop of the score that is accepted (0.005 = half a point of "
        "accuracy; for regression in the unit of the target); below 1 but for regression",
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="one-sided confidence of the gate")


class DropGate(Section):
    """A score may fall by less than a margin."""

    max_drop: float = Field(gt=0, description="margin: largest drop of the score that is accepted")


class RiseGate(Section):
    """An error may rise by less than a margin."""

    max_rise: float = Field(gt=0, description="margin: largest rise of the error that is accepted, in its own unit")


class TopKGate(DropGate):
    """Share of samples whose label is among the k highest scores."""

    k: int = Field(5, ge=2, description="answers that count")


class ClassesGate(DropGate):
    """Accuracy within every class on its own."""


class SlicesGate(DropGate):
    """Accuracy within every slice of the data on its own."""

    function: str = Field(
        pattern=FUNCTION,
        description="python:module:function(x, labels), beside the checkpoint, that names the slice of every sample",
    )


class FlipsGate(Section):
    """Share of samples whose answer is another than the checkpoint's, right or wrong."""

    max_rate: float = Field(gt=0, lt=1, description="its upper confidence bound must stay below this")


class CalibrationErrorGate(RiseGate):
    """Expected calibration error of the predicted probabilities, both models in the variant's bins."""

    bins: int = Field(15, ge=2, le=100, description="bins of equal mass")


class FidelityGate(Section):
    """How near the outputs stay to the checkpoint's. Needs no labels."""

    min_agreement: float | None = Field(None, gt=0, lt=1, description="share of samples with the checkpoint's answer")
    min_sqnr_db: float | None = Field(None, description="signal to quantization noise ratio of the output, dB")
    max_kl: float | None = Field(
        None, gt=0, description="mean Kullback-Leibler divergence from the checkpoint's probabilities, nats"
    )

    @model_validator(mode="after")
    def _one_at_least(self) -> Self:
        if self.min_agreement is None and self.min_sqnr_db is None and self.max_kl is None:
            raise ValueError("one of min_agreement, min_sqnr_db, max_kl is needed")
        return self


class Direction(StrEnum):
    """Whether more of a metric is better or worse."""

    HIGHER = "higher"
    LOWER = "lower"


class MetricGate(Section):
    """A metric of your own, compared by a paired bootstrap over samples."""

    name: str = Field("metric", pattern=r"^[a-z][a-z0-9_]*$", description="what reports call it")
    function: str = Field(
        pattern=FUNCTION,
        description="python:module:function(outputs, labels), beside the checkpoint, that gives one number",
    )
    better: Direction = Field(description="higher or lower: which way is better")
    max_loss: float = Field(gt=0, description="margin: by how much it may get worse, in its own unit")


class Gates(Section):
    """Checks beside the budget. A variant ships only if every declared one says PASS."""

    top_k: TopKGate | None = Field(None, description="classification: the label among the k best")
    macro_f1: DropGate | None = Field(None, description="classification: mean F1 over the classes")
    classes: ClassesGate | None = Field(None, description="classification: no class may lose more than this")
    slices: SlicesGate | None = Field(None, description="classification: no slice of the data may lose more than this")
    flips: FlipsGate | None = Field(None, description="share of changed answers")
    calibration_error: CalibrationErrorGate | None = Field(
        None, description="classification: are the predicted probabilities still honest"
    )
    rmse: RiseGate | None = Field(None, description="regression: root mean squared error")
    r2: DropGate | None = Field(None, description="regression: coefficient of determination")
    fidelity: FidelityGate | None = Field(None, description="nearness to the checkpoint's outputs, without labels")
    metric: MetricGate | None = Field(None, description="a metric of your own")

    @model_validator(mode="after")
    def _own_name(self) -> Self:
        if self.metric is not None and self.metric.name in {*type(self).model_fields, "accuracy"} - {"metric"}:
            raise ValueError(f"metric.name: {self.metric.name} is the name of a check that Edgemill has")
        return self

    @property
    def declared(self) -> tuple[str, ...]:
        """Names of the checks that are switched on."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def functions(self) -> tuple[str, ...]:
        """Own functions that the checks call, as python:module:function."""
        return tuple(gate.function for gate in (self.slices, self.metric) if gate is not None)
