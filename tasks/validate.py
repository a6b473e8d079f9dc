"""Stage: predict a split with the compiled file, in its target's arithmetic, and compare with the checkpoint."""

from __future__ import annotations

from edgemill.artifact import Artifact
from edgemill.data import SplitName
from edgemill.emulate.machine import Machine, on_this_host
from edgemill.evidence import VersionRange
from edgemill.execute import Call
from edgemill.lack import told
from edgemill.recipe import Recipe, Scheme
from edgemill.step import tool_versions
from edgemill.store import StepRecord
from edgemill.targets import Target
from edgemill.toolchains import installed
from edgemill.validate import OLDEST, OldestSettings
from edgemill.validate.call import compare_call, predict_call
from edgemill.validate.divergence import DIVERGENCE, Divergence, DivergenceSettings
from tasks.run import perform


def predict(
    model: Artifact, recipe: Recipe, data: Artifact, split: SplitName, subject: str, machine: Machine | None = None
) -> StepRecord:
    """Answer every sample of a split with the compiled file, through the target's own runtime.

    Args:
        machine: in whose arithmetic; None: this host's.
    """
    return perform(predict_call(model, recipe, data, split, machine), f"{split} {subject}")


def compare(
    variant: StepRecord, baseline: StepRecord, recipe: Recipe, data: Artifact, split: SplitName, subject: str
) -> StepRecord:
    """Paired comparison with the checkpoint: a screen on validation data, the gate on test data."""
    answers, usual = variant.outputs["predictions"], baseline.outputs["predictions"]
    return perform(compare_call(answers, usual, recipe, data, split), subject)


def in_oldest_runtime(
    model: Artifact, target: Target, scheme: Scheme | None, recipe: Recipe, data: Artifact, subject: str
) -> VersionRange | None:
    """Run a file in the oldest runtime of its target's range, and hold the answers against the newest's on this host.

    Returns:
        None where the target names no oldest runtime; with `missing` where that is not installed.

    Raises:
        ToolchainError: the file does not load there, or answers otherwise.
    """
    if target.oldest is None:
        return None
    name, newest = target.runtime.name, tool_versions((target.runtime.name,))[target.runtime.name]
    found = installed(target.oldest)
    if found.lacks:
        return VersionRange(runtime=name, oldest=target.runtime.minimum, newest=newest, missing=told(found.lacks))
    answers = predict(model, recipe, data, SplitName.VALIDATION, subject, on_this_host()).outputs["predictions"]
    settings, inputs = OldestSettings(scheme=scheme), {"model": model, "data": data, "predictions": answers}
    facts = perform(Call(OLDEST, settings, inputs, toolchain=target.oldest), subject).facts
    known = {key: facts[key] for key in ("compared", "agreement", "max_difference")}
    return VersionRange(runtime=name, oldest=facts["version"], newest=newest, **known)


def diverge(model: Artifact, data: Artifact, machine: Machine, subject: str) -> Divergence:
    """Compare the target's answers with those of exact arithmetic, on validation data."""
    call = Call(DIVERGENCE, DivergenceSettings(machine=machine), {"model": model, "data": data})
    return Divergence.model_validate(perform(call, subject).facts)
