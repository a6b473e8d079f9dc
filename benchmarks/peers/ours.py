"""Edgemill's own models: what an output folder of `edgemill optimize` holds for targets that this machine is."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.contenders import Made
from benchmarks.peers.environments import ROOT
from edgemill.artifact import digest_path
from edgemill.bundle.manifest import MANIFEST
from edgemill.bundle.reader import read_bundle
from edgemill.store import state_folder
from edgemill.summary import Summary, TargetResult, VariantResult
from edgemill.targets import load_target

SUMMARY = "summary.json"
EXIT_CODES = (0, 3)
"""Of `edgemill optimize`, with a result: every target has a passing variant, or some target has none."""


def optimize(recipe: Path, out: Path) -> None:
    """Run `edgemill optimize`; what a run before finished is taken from its store.

    Args:
        recipe: its file.
        out: output folder.

    Raises:
        RuntimeError: the run has no result.
    """
    command = [sys.executable, "-m", "edgemill.cli", "optimize", str(recipe), "--out", str(out)]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status not in EXIT_CODES:
        raise RuntimeError(f"`edgemill optimize {recipe}` ended with exit status {status}")


def variants(folder: Path, checkpoint: Path, state: Path | None = None) -> list[Made]:
    """All variants that were gated, of the targets whose CPU this machine has.

    Args:
        folder: written by `edgemill optimize`.
        checkpoint: that the peers get, too.
        state: the state folder of that run, for variants that were gated and do not ship; default: the usual one.

    Returns:
        One entry a file; variants of several targets with the same content are one.

    Raises:
        ValueError: no summary, or that of another checkpoint.
        EdgemillError: a bundle is damaged.
    """
    path = folder / SUMMARY
    if not path.is_file():
        raise ValueError(f"{folder} has no {SUMMARY}: give an output folder of `edgemill optimize`")
    summary = Summary.model_validate_json(path.read_bytes())
    if summary.checkpoint.digest != digest_path(checkpoint):
        raise ValueError(f"{folder} holds variants of another checkpoint than {checkpoint.name}")
    found: dict[str, Made] = {}
    for target in summary.targets:
        if load_target(target.target).arch != platform.machine():
            continue
        shipped = _shipped(folder, target)
        for variant in target.variants:
            if variant.verdict is None or variant.digest is None or variant.digest in found:
                continue
            found[variant.digest] = _entry(target, variant, shipped.get(variant.digest), state or state_folder())
    return list(found.values())


def _shipped(folder: Path, target: TargetResult) -> dict[str, Path]:
    """Verified files of the target's bundle by digest."""
    bundle = folder / "bundles" / target.target
    if not (bundle / MANIFEST).is_file():
        return {}
    return {variant.digest: bundle / variant.file for variant in read_bundle(bundle).variants}


def _entry(target: TargetResult, variant: VariantResult, path: Path | None, state: Path) -> Made:
    digest = str(variant.digest)
    stored = sorted((state / "objects" / digest[:2] / digest).glob("*"))
    file = path or next(iter(stored), None)
    notes = {
        "digest": digest,
        "target": target.target,
        "status": str(variant.status),
        "own_verdict": str(variant.verdict.verdict) if variant.verdict else None,
        "own_margin": variant.verdict.margin if variant.verdict else None,
        "chain": [step.title for step in variant.chain],
    }
    name = f"edgemill/{variant.candidate} {target.target}"
    if file is None:
        return Made(name, "edgemill", "Edgemill", failure="gated, does not ship, and its file is gone", notes=notes)
    return Made(name, "edgemill", "Edgemill", (file,), notes=notes)
