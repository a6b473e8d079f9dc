"""`manifest.json` of a bundle. A device reads it: nothing heavy is imported here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, FiniteFloat, NonNegativeInt, model_validator

from edgemill.artifact import Frozen, Signature
from edgemill.evidence import Arithmetic, VersionRange
from edgemill.recipe import Preprocess, Task
from edgemill.summary import DIGEST, Profile
from edgemill.targets.spec import RuntimeSpec
from edgemill.validate.verdict import Verdict

MANIFEST = "manifest.json"
FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"


class BundledVariant(Frozen):
    """One model file of the family."""

    candidate: str
    file: str = Field(pattern=FILE_NAME, description="name of the file or folder beside the manifest")
    kind: str = Field(description="onnx, tflite, openvino ...; decides which runtime loads it")
    scheme: str
    digest: str = Field(pattern=DIGEST)
    size_bytes: NonNegativeInt
    signature: Signature | None = None
    profile: Profile
    verdict: Verdict
    checks: tuple[Verdict, ...] = Field(default=(), description="every check that it passed, the main one first")
    arithmetic: Arithmetic | None = Field(default=None, description="in which its answers were judged")
    versions: VersionRange | None = Field(default=None, description="whether older runtimes answer alike")
    accuracy: FiniteFloat

    @model_validator(mode="after")
    def _only_passing(self) -> BundledVariant:
        if not self.verdict.passed or not all(check.passed for check in self.checks):
            raise ValueError(f"{self.candidate}: its verdict is {self.verdict.verdict}; only PASS ships")
        return self


class Manifest(Frozen):
    """Content of `manifest.json`."""

    schema_version: Literal[1] = 1
    model: str = Field(description="name of the model")
    task: Task
    preprocess: Preprocess = Field(description="what turns a stored sample into the model's input")
    target: str
    target_digest: str = Field(pattern=DIGEST)
    arch: str = Field(description="machine name as platform.machine() gives it")
    runtime: RuntimeSpec = Field(description="runtime and its supported versions")
    checkpoint_digest: str = Field(pattern=DIGEST)
    data_digest: str = Field(pattern=DIGEST)
    baseline_accuracy: FiniteFloat | None = Field(default=None, description="test score of the checkpoint")
    default: str = Field(pattern=DIGEST, description="digest of the variant to start with")
    variants: tuple[BundledVariant, ...] = Field(min_length=1, description="default first")

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if self.default not in {variant.digest for variant in self.variants}:
            raise ValueError("default: names no variant of the bundle")
        names = [variant.file.casefold() for variant in self.variants]
        if len(set(names)) != len(names) or MANIFEST in names:
            raise ValueError("variants: two files have the same name")
        return self

    @property
    def default_variant(self) -> BundledVariant:
        """The variant to start with."""
        return next(variant for variant in self.variants if variant.digest == self.default)
