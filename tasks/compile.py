"""Task: make the file that ships to one target."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from edgemill.artifact import Artifact
from edgemill.compile import CompileSettings
from edgemill.compile.backend import backend_of
from edgemill.execute import Call
from edgemill.recipe import Scheme
from edgemill.store import StepRecord
from edgemill.targets import Target
from tasks.run import finished, run_step


@task(name="compile", task_run_name="compile {subject}", cache_policy=NO_CACHE)
def compile_model(
    source: StepRecord | Artifact, output: str, target: Target, scheme: Scheme | None, data: Artifact, subject: str
) -> State[StepRecord]:
    """Compile a quantized (or plain fp32) model for a target.

    Args:
        source: record of the quantize step, or the fp32 model itself.
        output: which of the step's outputs is compiled.
    """
    model = source if isinstance(source, Artifact) else source.outputs[output]
    call = Call(backend_of(target).step, CompileSettings(target=target, scheme=scheme), {"model": model, "data": data})
    return finished(run_step(call, subject))
