"""What `edgemill gate` answers, as one value: JSON, Markdown and JUnit are written from it."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field, NonNegativeInt, computed_field

from edgemill.artifact import Frozen
from edgemill.errors import QualityGateError
from edgemill.recipe import Task
from edgemill.validate.verdict import Decision, GateFacts, Verdict


class GateReport(Frozen):
    """One model file held against a checkpoint on the recipe's test split."""

    schema_version: Literal[1] = 1
    name: str = Field(description="of the recipe")
    task: Task
    model: str = Field(description="file that was checked")
    digest: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of it")
    kind: str = Field(description="onnx or tflite")
    size_bytes: NonNegativeInt
    checkpoint_digest: str
    data_digest: str
    samples: NonNegativeInt = Field(description="of the test split")
    source: str = Field(description="in which arithmetic the answers were computed, e.g. measured:native")
    note: str = Field(default="", description="why it is not the target's own hardware; empty where it is")
    facts: GateFacts
    versions: dict[str, str] = Field(default_factory=dict)
    command: str = Field(description="shell command that does this again")
    started: AwareDatetime
    finished: AwareDatetime

    @property
    def checks(self) -> tuple[Verdict, ...]:
        """Every check, the main one first."""
        return self.facts.checks or (self.facts.verdict,)

    @computed_field(description="PASS, FAIL or INCONCLUSIVE, over all checks")  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Decision:
        """Of all checks together."""
        return self.facts.verdict.verdict

    @computed_field(description="exit status of `edgemill gate`")  # type: ignore[prop-decorator]
    @property
    def exit_code(self) -> int:
        """0 for PASS, 3 for anything else."""
        return 0 if self.facts.verdict.passed else QualityGateError.exit_code
