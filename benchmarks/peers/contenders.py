"""The peers: which settings each is asked for, and how a setting is run as a child process with a time limit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import ROOT, Environment, child_environment
from edgemill.artifact import digest_path, digest_text

HERE = Path(__file__).resolve().parent
_RESULT = "result.json"
_PRIVATE = {"home": "HOME", "tmp": "TMPDIR"}
"""Folders of a run that a peer gets for itself, and the variables that name them."""
_LAST_LINES = 4
_LINE = 300


@dataclass(frozen=True)
class Setting:
    """One way to use a peer.

    Attributes:
        name: of the setting in the peer's script.
        limit_s: time after which it is ended.
        quick: run by --quick, too.
        training: uses the train split, which takes minutes.
    """

    name: str
    limit_s: float = 300
    quick: bool = False
    training: bool = False


@dataclass(frozen=True)
class Peer:
    """A tool that is compared with.

    Attributes:
        name: of its environment (`envs/NAME.lock`) and its script (`run_NAME.py`).
        title: as its makers call it.
        settings: what it is asked for.
    """

    name: str
    title: str
    settings: tuple[Setting, ...]


PEERS = (
    Peer(
        "onnxruntime",
        "onnxruntime",
        (
            Setting("dynamic", quick=True),
            Setting("static_default", quick=True),
            Setting("static_u8s8", quick=True),
            Setting("static_u8s8_per_channel"),
            Setting("static_u8s8_reduced"),
        ),
    ),
    Peer("nncf", "NNCF", (Setting("ptq"), Setting("accuracy_control"))),
    Peer("onnx_neural_compressor", "onnx-neural-compressor", (Setting("static_per_channel"), Setting("autotune"))),
    Peer("olive", "Olive", (Setting("static_default"),)),
    Peer("aimet_onnx", "AIMET", (Setting("ptq"), Setting("ptq_prequantized"))),
    Peer("modelopt", "ModelOpt", (Setting("int8"),)),
    Peer(
        "tfmot",
        "TFMOT, TFLite",
        (
            Setting("fp32", quick=True),
            Setting("dynamic", quick=True),
            Setting("ptq", quick=True),
            Setting("ptq_integer", quick=True),
            Setting("qat", 1800, training=True),
            Setting("prune", 1800, training=True),
            Setting("cluster", 1800, training=True),
            Setting("pcqat", 3600, training=True),
        ),
    ),
)


@dataclass(frozen=True)
class Made:
    """What came of one setting of a peer, or of Edgemill.

    Attributes:
        name: unique, e.g. `nncf/ptq`.
        who: peer, edgemill, baseline or extra.
        title: whose model it is.
        files: everything that the model needs, the model itself first; empty where it failed.
        failure: why there is no model; empty if there is one.
        seconds: that making it took, imports excluded.
        peak_rss_mb: of the process that made it, 10^6 bytes.
        installed_mb: size of the peer's environment, 10^6 bytes.
        installed_s: that installing it took, downloads included.
        notes: what the maker tells.
    """

    name: str
    who: str
    title: str
    files: tuple[Path, ...] = ()
    failure: str = ""
    seconds: float | None = None
    peak_rss_mb: float | None = None
    installed_mb: float | None = None
    installed_s: float | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Kind of the model file: onnx or tflite."""
        return "tflite" if self.files and self.files[0].suffix == ".tflite" else "onnx"


def make(peer: Peer, setting: Setting, environment: Environment, inputs: Path, out: Path) -> Made:
    """Let a peer make a model, or take the one that the same script, packages and inputs made before.

    Args:
        peer: whose script runs.
        setting: what it is asked for.
        environment: of the peer.
        inputs: folder of `benchmarks.peers.workload`.
        out: folder for the model; emptied first.

    Returns:
        The model, or the reason why there is none: whatever a peer does is a row, not an error.
    """
    made = Made(
        f"{peer.name}/{setting.name}",
        "peer",
        peer.title,
        installed_mb=environment.megabytes,
        installed_s=environment.seconds,
    )
    key = _key(peer, setting, environment, inputs)
    result = _made_before(out, key)
    if result is None:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        result, failure = _make(peer, setting, environment, inputs, out)
        if failure:
            return replace(made, failure=failure)
        (out / _RESULT).write_text(json.dumps(result | {"key": key}) + "\n", encoding="utf-8")
    return replace(
        made,
        # The model's own name is the shortest: model.onnx, model.onnx_data.
        files=tuple(sorted((out / file for file in result["files"]), key=lambda path: len(path.name))),
        seconds=result["seconds"],
        peak_rss_mb=result["peak_rss_mb"],
        notes=result["notes"],
    )


def _key(peer: Peer, setting: Setting, environment: Environment, inputs: Path) -> str:
    scripts = [digest_path(HERE / name) for name in (f"run_{peer.name}.py", "runner.py")]
    names = [path for path in sorted(inputs.iterdir()) if setting.training or not path.name.startswith("train_")]
    return digest_text(" ".join([setting.name, environment.lock, *scripts, *map(digest_path, names)]))


def _made_before(out: Path, key: str) -> dict[str, Any] | None:
    try:
        result: dict[str, Any] = json.loads((out / _RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = all((out / name).is_file() for name in result.get("files", []))
    return result if result.get("key") == key and whole else None


def _make(
    peer: Peer, setting: Setting, environment: Environment, inputs: Path, out: Path
) -> tuple[dict[str, Any], str]:
    """What the script tells of its model, or why there is none."""
    own, log = _own_inputs(inputs, out / "inputs"), out / "log.txt"
    command = [str(environment.python), str(HERE / f"run_{peer.name}.py"), setting.name, str(own), str(out)]
    with log.open("w", encoding="utf-8") as said:
        status = _run(command, said, setting.limit_s, out)
    if status is None:
        return {}, f"ended after its limit of {setting.limit_s:.0f} s"
    try:
        result: dict[str, Any] = json.loads((out / _RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}, f"exit status {status}: {_last_words(log)}"
    if not result["files"]:
        return {}, f"wrote no model: {_last_words(log)}"
    copied = [path for path in sorted(own.iterdir()) if not path.is_symlink()]
    changed = [path.name for path in copied if digest_path(path) != digest_path(inputs / path.name)]
    if changed:
        result["notes"]["changed_its_input"] = changed
    for folder in ("inputs", *_PRIVATE):
        shutil.rmtree(out / folder, ignore_errors=True)
    return result, ""


def _own_inputs(inputs: Path, own: Path) -> Path:
    """The inputs for one setting alone: a peer may write beside, or into, what it reads."""
    own.mkdir()
    for path in sorted(inputs.iterdir()):
        if path.suffix == ".npy":
            (own / path.name).symlink_to(path.resolve())
        else:
            shutil.copyfile(path, own / path.name)
    return own


def _run(command: list[str], log: Any, limit_s: float, out: Path) -> int | None:
    """Exit status of a child in a process group of its own; None where it was ended for its time."""
    environment = child_environment() | {variable: str(out / folder) for folder, variable in _PRIVATE.items()}
    for folder in _PRIVATE:
        (out / folder).mkdir()
    child = subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=out, env=environment,
        start_new_session=True,
    )  # fmt: skip
    try:
        return child.wait(limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        # Whatever it started ends with it.
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _last_words(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace").replace(str(ROOT), ".")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(line[:_LINE] for line in lines[-_LAST_LINES:]) or "it said nothing"
