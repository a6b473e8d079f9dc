"""A step: one pure unit of work, run in a child process, whose outputs are artifacts.

A step body is a function `run(settings, inputs, context) -> Outputs` in a module that may import
heavy frameworks. It reads input files, never edits them, and writes only below `context.out` and
`context.resume`. Everything else it knows comes in as a value: seed, threads, target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from edgemill.artifact import Artifact, Signature, canonical_json, digest_text


@dataclass(frozen=True)
class Step:
    """Declaration of a step.

    Attributes:
        name: dotted name, `<stage>.<method>`; also the prefix of its metrics.
        version: raised whenever the body would give another result for the same inputs.
        body: `module:function` of the body, imported in the child process only.
        tools: distributions whose installed version is part of the cache key.
        framework: `tensorflow` when the body imports it (such steps share a warm worker).
        exclusive: measures time, so nothing else may run on the machine meanwhile.
        varies: why two runs with equal inputs give other outputs; empty for a deterministic step.
        time_limit_s: hard limit; the child is killed after it.
        memory_limit_bytes: resident size above which the child is killed.
    """

    name: str
    version: int
    body: str
    tools: tuple[str, ...] = ()
    framework: str | None = None
    exclusive: bool = False
    varies: str = ""
    time_limit_s: float = 4 * 3600.0
    memory_limit_bytes: int = 16 << 30

    @property
    def deterministic(self) -> bool:
        """Whether equal inputs, settings, seed and tools on one machine give equal outputs."""
        return not self.varies


@dataclass(frozen=True)
class InputFile:
    """An artifact given to a step, with the place where its content can be read."""

    path: Path
    artifact: Artifact


@dataclass(frozen=True)
class OutputFile:
    """A file or folder that a step has written below `context.out`."""

    path: Path
    kind: str
    signature: Signature | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outputs:
    """What a step returns: files by name, and facts about the step as JSON values."""

    files: Mapping[str, OutputFile] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StepContext:
    """What surrounds a running step.

    Attributes:
        out: empty folder for the outputs.
        resume: folder that survives a kill; a later run of the same step finds it as it was left.
        seed: seed of every random generator of the step.
        report: `report(fraction, message)` with fraction in 0..1 (or None if unknown); may be
            called often.
    """

    out: Path
    resume: Path
    seed: int
    report: Callable[[float | None, str], None]


def tool_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Installed version of each distribution, `absent` where it is not installed."""
    versions: dict[str, str] = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions


def cache_key(
    step: Step,
    settings: Any,
    inputs: Mapping[str, str],
    seed: int,
    extra: Mapping[str, str],
    tools: Mapping[str, str] | None = None,
) -> str:
    """Identity of one execution of a step (design rule 6).

    Args:
        settings: JSON value of the step's settings.
        inputs: digest of every input artifact by its name.
        extra: further identities, e.g. the digest of the target or of the measuring host.
        tools: version of every tool of the step; None: as installed here.
    """
    return digest_text(
        canonical_json(
            {
                "step": step.name,
                "version": step.version,
                "settings": settings,
                "inputs": dict(inputs),
                "tools": tool_versions(step.tools) if tools is None else dict(tools),
                "seed": seed,
                "extra": dict(extra),
            }
        )
    )
