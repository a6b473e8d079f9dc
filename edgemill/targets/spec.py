"""Targets: what a device class can run, and how it is reached. One YAML file each."""

from __future__ import annotations

import platform
from collections.abc import Set
from datetime import date
from enum import StrEnum
from typing import Annotated, Any, Literal

from packaging.version import Version
from pydantic import BeforeValidator, Field, model_validator

from edgemill.artifact import Frozen, canonical_json, digest_text
from edgemill.targets.cpu import architecture


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
    """A CPU of the target's class in an emulator. Its numbers count, its times never do."""

    emulator: Literal["qemu-x86_64", "qemu-aarch64", "qemu-riscv64", "qemu-system-arm"] = Field(
        description="program of the package qemu-user, or qemu-system-arm for microcontrollers"
    )
    cpu: str = Field(min_length=1, description="value of the emulator's option -cpu")
    board: str | None = Field(None, description="value of the option -M of qemu-system-arm")
    probe: int | None = Field(
        None,
        gt=0,
        description="of a program: how many samples of a split it answers; then, if the same source compiled for "
        "the host gave the same answers to these, that one answers the rest. Left out: it answers all",
    )

    @property
    def arch(self) -> str:
        """Architecture of the programs that the emulator runs, as platform.machine() names it."""
        return "arm" if self.emulator == "qemu-system-arm" else self.emulator.removeprefix("qemu-")


class By(StrEnum):
    """What answers for the compiled file on this machine."""

    RUNTIME = "runtime"
    """The runtime of the device, natively or in an emulated CPU. Only here times are taken."""
    PROGRAM = "program"
    """The file is a program: it runs itself, natively or in an emulated CPU."""
    REFERENCE = "reference"
    """An implementation that gives the device's integers bit for bit, on the host."""
    SIMULATOR = "simulator"
    """The simulator of the vendor."""
    NOTHING = "nothing"
    """Nothing here can run it: it is converted, and never passes."""


class Execution(Frozen):
    """How a target's files answer on this machine."""

    by: By = By.RUNTIME
    toolchain: str | None = Field(None, description="environment that holds what answers; left out: Edgemill's own")
    name: str | None = Field(None, description="of the reference or the simulator, for the label simulated:NAME")
    note: str = Field("", description="what it cannot show")

    @model_validator(mode="after")
    def _named(self) -> Execution:
        if (self.name is None) == (self.by in (By.REFERENCE, By.SIMULATOR)):
            raise ValueError("name: is given for a reference or a simulator, and only for them")
        return self


class CrossCompiler(Frozen):
    """The C compiler of a target."""

    compiler: str = Field(description="program, e.g. arm-none-eabi-gcc")
    flags: tuple[str, ...] = Field((), description="of CPU and floating-point unit")
    packages: tuple[str, ...] = Field(description="Debian packages that hold compiler and C library")
    bare: bool = Field(False, description="no operating system: semihosting instead of files and streams")


class Llvm(Frozen):
    """For which CPU a compiler that is built on LLVM makes code."""

    triple: str = Field(min_length=5, description="architecture, vendor, system, e.g. aarch64-unknown-linux-gnu")
    cpu: str = Field(
        min_length=1, description="LLVM's name of the CPU, or of the level that all CPUs of the class have"
    )
    features: tuple[str, ...] = Field((), description="further ones, each with its sign, e.g. +v")
    abi: str | None = Field(None, description="where the architecture has several, e.g. lp64d")


class Npu(Frozen):
    """A neural processing unit, as the compiler Vela knows it."""

    accelerator: str = Field(description="value of Vela's option --accelerator-config")
    system_config: str = Field(description="value of --system-config: clocks and memories")
    memory_mode: str = Field(description="value of --memory-mode: where weights and activations lie")
    clock_hz: float = Field(gt=0, description="clock of the NPU in that configuration")
    min_npu_share: float = Field(
        0.9, ge=0, le=1, description="share of operators that must run on the NPU; below it a variant is refused"
    )


def _as_text(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value  # YAML reads a bare date as one


Date = Annotated[str, BeforeValidator(_as_text), Field(pattern=r"^\d{4}-\d{2}(-\d{2})?$")]
"""A month or a day, as in 2026-11 or 2026-11-23."""


class Source(Frozen):
    """Where a fact of a target comes from."""

    fact: str = Field(min_length=3)
    source: str = Field(min_length=10, description="document or measurement, with its version")
    date: Date = Field(description="of the source, or when it was read")


class Price(Frozen):
    """What one device of the class costs."""

    usd: float = Field(gt=0, description="of a single piece, board or module, without taxes")
    source: str = Field(min_length=10)
    date: Date


class Limits(Frozen):
    """What the device has; None where the class sets no limit."""

    flash_bytes: int | None = Field(None, gt=0, description="for the model's file, or the program where it is one")
    ram_bytes: int | None = Field(None, gt=0, description="for activations and all else the model needs while running")
    latency_ms: float | None = Field(None, gt=0, description="95th percentile of one inference")


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
    toolchain: str | None = Field(None, description="environment in which files are compiled; left out: Edgemill's own")
    arch: str = Field(description="machine name as platform.machine() gives it, e.g. x86_64, aarch64")
    runtime: RuntimeSpec
    execution: Execution = Execution()
    oldest: str | None = Field(None, description="toolchain with the runtime's oldest version, to prove the range")
    formats: tuple[str, ...] = Field(
        min_length=1, description="number formats that the target runs: fp32, fp16, int8_static, ..."
    )
    fast: tuple[str, ...] = Field((), description="those of the formats for which the device has fast arithmetic")
    opset: int | None = Field(None, description="highest ONNX opset of the oldest supported runtime")
    ir_version: int | None = Field(None, description="highest ONNX IR version of the oldest supported runtime")
    int8: Int8Arithmetic
    cpu: CpuFeatures = CpuFeatures()
    emulation: Emulation | None = Field(None, description="how the target's arithmetic is had on another machine")
    cross: CrossCompiler | None = Field(None, description="for targets that get a program")
    llvm: Llvm | None = Field(None, description="for targets that get machine code from iree or tvm")
    options: dict[str, str] = Field(
        {}, description="settings of the backend that name the device: soc_model and htp_arch of qnn, platform of rknn"
    )
    npu: Npu | None = Field(None, description="for targets of the backend vela")
    limits: Limits = Limits()
    power: PowerEnvelope | None = Field(None, description="left out where no figure can be cited")
    price: Price | None = Field(None, description="left out where no figure can be cited")
    sources: tuple[Source, ...] = Field((), description="of the facts above")

    @model_validator(mode="after")
    def _consistent(self) -> Target:
        if strange := [name for name in self.fast if name not in self.formats]:
            raise ValueError(f"fast: {', '.join(strange)} is not among formats")
        if (self.cross is not None) != (self.execution.by is By.PROGRAM):
            raise ValueError("cross: a compiler is given for targets whose files are programs, and only for them")
        if self.emulation is not None and self.emulation.probe and self.execution.by is not By.PROGRAM:
            raise ValueError("emulation.probe: only a program has a twin on the host that answers the rest")
        if Version(self.runtime.minimum) >= Version(self.runtime.below):
            raise ValueError(f"runtime: minimum {self.runtime.minimum} must be below {self.runtime.below}")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the whole description; part of the cache key of everything made for it."""
        return digest_text(canonical_json(self.model_dump(mode="json")))

    @property
    def essence(self) -> Target:
        """The target without what decides no file (limits, prices, words), so that files stay in the cache."""
        return self.model_copy(
            update={"title": "", "description": "", "limits": Limits(), "power": None, "price": None, "sources": ()}
        )

    @property
    def timed(self) -> bool:
        """Whether times of this machine can say something of the target; foreign machine code runs emulated only."""
        return self.execution.by is By.RUNTIME and not self.is_foreign_code

    @property
    def is_foreign_code(self) -> bool:
        """Whether files are machine code of another architecture than this machine's."""
        return self.llvm is not None and architecture(self.arch) != architecture(platform.machine())

    @property
    def toolchains(self) -> tuple[str, ...]:
        """Environments that are needed to make files and let them answer."""
        named = (self.toolchain, self.execution.toolchain)
        return tuple(dict.fromkeys(name for name in named if name is not None))
