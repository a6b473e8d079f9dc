"""Small real step bodies for the tests of the executor. They run in child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from edgemill.errors import DataError
from edgemill.step import InputFile, OutputFile, Outputs, StepContext


class Words(BaseModel):
    text: str = ""
    seconds: float = 0.0
    megabytes: int = 0


def upper(settings: Words, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    source = inputs["source"].path.read_text() if "source" in inputs else settings.text
    path = context.out / "words.txt"
    path.write_text(source.upper())
    context.report(1.0, "done")
    return Outputs({"words": OutputFile(path, kind="text")}, {"length": len(source), "pid": os.getpid()})


def refuse(settings: Words, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    raise DataError("Too few words.", where="line 3", expected="two", got="one", remedy="add one")


def crash(settings: Words, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    raise ZeroDivisionError("not foreseen")


def die(settings: Words, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    print("last words", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    return Outputs()


def resume(settings: Words, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Dies the first time, and goes on from its mark the second time."""
    mark = context.resume / "mark"
    if not mark.exists():
        mark.write_text("epoch 3")
        (context.out / "half.txt").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
    assert not (context.out / "half.txt").exists()
    path = context.out / "result.txt"
    path.write_text(mark.read_text())
    return Outputs({"result": OutputFile(path, kind="text")})


def sleep(settings: Words, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    time.sleep(settings.seconds)
    return Outputs()


def fill(settings: Words, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    block = bytearray(os.urandom(1 << 20) * settings.megabytes)
    time.sleep(settings.seconds)
    return Outputs(facts={"bytes": len(block)})


def undeclared(settings: Words, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    return Outputs({"ghost": OutputFile(context.out / "ghost.txt", kind="text")})


def number(settings: Words, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Varies: its output is the number of its process."""
    path = context.out / "number.txt"
    path.write_text(str(os.getpid()))
    return Outputs({"number": OutputFile(path, kind="text")})


def breed(settings: Words, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Leaves a temporary file, starts a process of its group and one of a session of its own, and waits."""
    Path(tempfile.mkdtemp(), "model.bin").write_text("half")
    _children(settings)
    time.sleep(settings.seconds)
    return Outputs()


def breed_and_die(settings: Words, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Starts processes, tells their numbers, and dies."""
    print(*(child.pid for child in _children(settings)), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    return Outputs()


def _children(settings: Words) -> list[subprocess.Popen[bytes]]:
    command = ["sleep", f"{settings.seconds:.0f}"]
    return [subprocess.Popen(command, start_new_session=alone) for alone in (False, True)]


def where(settings: Words, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Tell the environment, and which modules come from elsewhere than it, the interpreter and Edgemill."""
    import sys

    import numpy as np

    own = (sys.prefix, sys.base_prefix)
    foreign = [np.__file__] if not np.__file__.startswith(own) else []
    return Outputs(facts={"prefix": sys.prefix, "foreign": foreign})
