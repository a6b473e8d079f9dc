"""What a gate says. Light: a device reads verdicts too."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, FiniteFloat

from edgemill.artifact import Frozen


class Decision(StrEnum):
    """The three answers of a gate. Only PASS ships."""

    PASS = "PASS"
    """The promise is proven at the asked confidence."""
    FAIL = "FAIL"
    """The opposite is proven, or the model is broken."""
    INCONCLUSIVE = "INCONCLUSIVE"
    """Neither is proven with the samples at hand."""


class Bound(StrEnum):
    """On which side of the margin an estimate must prove to be."""

    BELOW = "below"
    """The estimate is a loss: PASS iff `upper < margin`, FAIL iff `lower > margin`."""
    ABOVE = "above"
    """The estimate is a virtue with a floor: PASS iff `lower > margin`, FAIL iff `upper < margin`."""


class Verdict(Frozen):
    """The numbers of one gate.

    `estimate` is a loss (a drop is `score of the baseline - score of the variant`: positive is worse)
    unless `bound` says that it is a virtue with a floor. `lower` and `upper` are its one-sided
    confidence bounds, each holding on its own with probability `confidence`. Neither side of the
    margin proven: INCONCLUSIVE.
    """

    gate: str = Field(description="what was checked, e.g. accuracy")
    verdict: Decision
    estimate: FiniteFloat | None = Field(default=None, description="observed; None where it could not be computed")
    lower: FiniteFloat | None = Field(default=None, description="one-sided lower bound of the estimate")
    upper: FiniteFloat | None = Field(default=None, description="one-sided upper bound of the estimate")
    margin: FiniteFloat = Field(description="largest loss, or smallest virtue, that is accepted")
    bound: Bound = Bound.BELOW
    unit: str = Field(default="", description="points (hundredths; the numbers are fractions), dB, nats, or empty")
    confidence: float = Field(gt=0.5, lt=1, description="one-sided confidence of each bound")
    n: int = Field(ge=0, description="paired samples")
    method: str = Field(description="statistical method, or `none` where no test was made")
    samples_needed: int | None = Field(
        default=None, description="INCONCLUSIVE only: samples that would decide if the observed rates stayed"
    )
    reason: str = Field(description="one sentence for people")

    @property
    def passed(self) -> bool:
        """Whether this model may ship."""
        return self.verdict is Decision.PASS


class Group(Frozen):
    """A class or slice within a check that looks at every one of them on its own."""

    gate: str = Field(description="the check that it belongs to: classes or slices")
    name: str = Field(description="the class number, or the slice's name")
    n: int = Field(gt=0, description="paired samples in it")
    lost: int = Field(ge=0, description="right in the baseline, wrong in the variant")
    won: int = Field(ge=0, description="wrong in the baseline, right in the variant")
    estimate: FiniteFloat = Field(description="observed drop of the accuracy within it")
    lower: FiniteFloat = Field(description="one-sided lower bound of its own, not corrected")
    upper: FiniteFloat = Field(description="one-sided upper bound of its own, not corrected")
    verdict: Decision = Field(description="PASS at the full level; FAIL with Holm's correction over all groups")


class GateFacts(Frozen):
    """Facts of `validate.gate` and `validate.screen`; read them with `GateFacts.model_validate(facts)`."""

    verdict: Verdict = Field(
        description="of all checks together: the first that failed, else the first undecided, else the main one"
    )
    checks: tuple[Verdict, ...] = Field(default=(), description="every declared check, the main one first")
    groups: tuple[Group, ...] = Field(default=(), description="every class and slice of the checks that have such")
    accuracy: FiniteFloat | None = Field(
        default=None, description="score of the variant; None where it cannot be computed"
    )
    baseline_accuracy: FiniteFloat | None = Field(description="of the baseline; None where labels are broken")
    lost: int | None = Field(default=None, description="right in the baseline, wrong here; None for real-valued scores")
    won: int | None = Field(default=None, description="wrong in the baseline, right here")
    flip_rate: FiniteFloat | None = Field(default=None, description="share of samples with another answer")
    fault: str | None = Field(
        default=None, description="name of what is broken (`edgemill.validate.faults.Fault`), e.g. non_finite"
    )

    @property
    def main(self) -> Verdict:
        """The check of the recipe's budget; its estimate is the drop of the score."""
        return self.checks[0] if self.checks else self.verdict


def combine(checks: tuple[Verdict, ...]) -> Verdict:
    """One verdict of several checks, the main one first: the first FAIL, else the first INCONCLUSIVE, else the main.

    A variant ships only if every check passes, each at the full level. That is an intersection-union
    test (Berger 1982, Technometrics 24:295-300): a variant with any true loss beyond its margin must
    pass that one check by mistake, which has at most the probability 1 - confidence. So a PASS of
    all needs no correction for their number.
    """
    for decision in (Decision.FAIL, Decision.INCONCLUSIVE):
        for check in checks:
            if check.verdict is decision:
                return check
    return checks[0]
