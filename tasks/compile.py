"""Stage: make the file that ships to one target."""

from __future__ import annotations

from edgemill.artifact import Artifact
from edgemill.compile import CompileSettings
from edgemill.compile.backend import backend_of
from edgemill.compile.c_compiler import compiler_identity
from edgemill.execute import Call
from edgemill.recipe import Scheme
from edgemill.store import StepRecord
from edgemill.targets import Target
from tasks.run import perform


def compile_model(model: Artifact, target: Target, scheme: Scheme | None, data: Artifact, subject: str) -> StepRecord:
    """Compile a quantized (or plain fp32) model for a target."""
    settings = CompileSettings(target=target.essence, scheme=scheme)
    call = Call(
        backend_of(target).step,
        settings,
        {"model": model, "data": data},
        extra=compiler_identity(target.cross),
        toolchain=target.toolchain,
    )
    return perform(call, subject)
