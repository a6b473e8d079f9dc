"""Targets: what a device class can run, and how it is reached. One YAML file each."""

from __future__ import annotations

import difflib
from collections.abc import Set
from enum import StrEnum
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, model_validator

from edgemill.artifact import Frozen, canonical_json, digest_text
from edgemill.errors import RecipeError


class ActivationType(StrEnum):
    """Integer type of quantized activations."""

    UINT8 = "uint8"
    """For x86: U8S8 runs on VNNI; S8S8 falls back to slow kernels."""
    INT8 = "int8"
    """For ARM and LiteRT."""


class WeightType(StrEnum):
    """Integer type of quantized weights."""

    INT8 = "int8"
    """Zero point 0."""
    UINT8 = "uint8"
    """The same grid with zero point 128. U8U8 products never saturate, and need slower kernels on x86."""


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
    weights: WeightType = WeightType.INT8


class CpuFeatures(Frozen):
    """What makes a CPU calculate as the target's does, in the names of /proc/cpuinfo."""

    any_of: tuple[str, ...] = Field((), description="one of these must be there; empty: nothing is asked")
    none_of: tuple[str, ...] = Field((), description="none of these may be there")

    def refusal(self, features: Set[str]) -> str:
        """Why a CPU with these features calculates otherwise; empty where it does not."""
        if self.any_of and not features & set(self.any_of):
            return f"this CPU has none of {', '.join(self.any_of)}"
        if strange := [name for name in self.none_of if name in features]:
            return f"this CPU has {', '.join(strange)}, which the target lacks"
        return ""


class Emulation(Frozen):
    """A CPU of the target's class in an emulator of user programs. Its numbers count, its times never do."""

    emulator: Literal["qemu-x86_64", "qemu-aarch64"] = Field(description="program of the package qemu-user")
    cpu: str = Field(min_length=1, description="value of the emulator's option -cpu")

    @property
    def arch(self) -> str:
        """Architecture of the programs that the emulator runs, as platform.machine() names it."""
        return self.emulator.removeprefix("qemu-")


class Limits(Frozen):
    """What the device has; None where the class sets no limit."""

    flash_bytes: int | None = None
    ram_bytes: int | None = None
    latency_ms: float | None = None


class PowerEnvelope(Frozen):
    """Power that a device class draws, for estimates where no sensor is; see `benchmark.energy.envelope`."""

    idle_w: float = Field(gt=0, description="watts while nothing runs")
    active_w: float = Field(gt=0, description="watts while `active_cores` cores compute")
    active_cores: int = Field(gt=0, description="cores that were busy when active_w was taken")
    source: str = Field(min_length=20, description="which device was measured how, by whom and when")

    @model_validator(mode="after")
    def _active_is_more(self) -> PowerEnvelope:
        if self.active_w <= self.idle_w:
            raise ValueError("active_w must be above idle_w")
        return self


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
    cpu: CpuFeatures = CpuFeatures()
    emulation: Emulation | None = Field(None, description="how the target's arithmetic is had on another machine")
    limits: Limits = Limits()
    power: PowerEnvelope | None = Field(None, description="left out where no figure can be cited")

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
