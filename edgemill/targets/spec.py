"""Targets: what a device class can run, and how it is reached. One YAML file each."""

from __future__ import annotations

import difflib
from enum import StrEnum
from functools import cache
from importlib import resources
from pathlib import Path

import yaml
from pydantic import Field

from edgemill.artifact import Frozen, canonical_json, digest_text
from edgemill.errors import RecipeError


class ActivationType(StrEnum):
    """Integer type of quantized activations."""

    UINT8 = "uint8"
    """For x86: U8S8 runs on VNNI; S8S8 falls back to slow kernels."""
    INT8 = "int8"
    """For ARM and LiteRT."""


class RuntimeSpec(Frozen):
    """The inference runtime on the device."""

    name: str = Field(description="adapter in edgemill.runtimes, and distribution whose version counts")
    minimum: str = Field(description="oldest version that is supported on the device")
    below: str = Field(description="first version that is not supported")


class Int8Arithmetic(Frozen):
    """How the target multiplies 8-bit integers."""

    activations: ActivationType
    reduce_range: bool = Field(
        description="7-bit weights, for CPUs whose 16-bit intermediate saturates (AVX2 without VNNI)"
    )
    per_channel: bool = True


class Limits(Frozen):
    """What the device has; None where the class sets no limit."""

    flash_bytes: int | None = None
    ram_bytes: int | None = None
    latency_ms: float | None = None


class Target(Frozen):
    """A device class."""

    name: str
    title: str
    description: str
    backend: str = Field(description="module in edgemill.compile")
    arch: str = Field(description="machine name as platform.machine() gives it, e.g. x86_64, aarch64")
    runtime: RuntimeSpec
    formats: tuple[str, ...] = Field(description="number formats that the target runs: fp32, fp16, int8_static, ...")
    opset: int | None = Field(None, description="highest ONNX opset of the oldest supported runtime")
    ir_version: int | None = Field(None, description="highest ONNX IR version of the oldest supported runtime")
    int8: Int8Arithmetic
    limits: Limits = Limits()

    @property
    def digest(self) -> str:
        """SHA-256 of the whole description; part of the cache key of everything made for it."""
        return digest_text(canonical_json(self.model_dump(mode="json")))


def _catalog() -> Path:
    return Path(str(resources.files("edgemill.targets")))


def target_names() -> list[str]:
    """Names in the catalog, sorted."""
    return sorted(path.stem for path in _catalog().glob("*.yaml"))


@cache
def load_target(name: str) -> Target:
    """Read one target of the catalog.

    Raises:
        RecipeError: no such target.
    """
    path = _catalog() / f"{name}.yaml"
    if name not in target_names():
        near = difflib.get_close_matches(name, target_names(), n=1)
        raise RecipeError(
            "Unknown target.",
            where="targets",
            got=name,
            expected=", ".join(target_names()),
            remedy=f"did you mean {near[0]}?" if near else "edgemill targets lists them",
        )
    return Target.model_validate({"name": name} | yaml.safe_load(path.read_text(encoding="utf-8")))
