"""The program inside the emulator: `python -m edgemill.emulate.guest --folder DIR [--cpuinfo FILE --part NUMBER]`.

Answers requests from standard input (see `protocol`) on standard output, and ends when standard input
closes or its parent is gone; DIR, its scratch folder, goes with it. It needs numpy, pydantic and the
runtime of the model, nothing else.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import struct
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from edgemill.emulate.protocol import HWCAP, HWCAP2, PROTOCOL

_LEAVING = threading.Lock()
_AT_HWCAP, _AT_HWCAP2 = 16, 26
_VERSIONS = ("numpy", "onnxruntime", "ai-edge-litert")


def main() -> None:
    """Serve requests until standard input closes."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a runtime prints must not end up between the answers
    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    folder = Path(options["--folder"])
    threading.Thread(target=_leave_with_parent, args=(folder,), daemon=True).start()
    if "--cpuinfo" in options:
        _write_cpuinfo(Path(options["--cpuinfo"]), options["--part"])
    models = _Models()
    for line in sys.stdin:
        request = json.loads(line)
        answers.write(json.dumps({"id": request["id"]} | _answer(request, models)) + "\n")
        answers.flush()
    _leave(folder)


def hardware_features() -> tuple[str, ...]:
    """Features of an ARM CPU as the kernel (here: the emulator) tells every program in its auxiliary vector."""
    auxiliary = dict(struct.iter_unpack("QQ", Path("/proc/self/auxv").read_bytes()))
    bits, further = auxiliary.get(_AT_HWCAP, 0), auxiliary.get(_AT_HWCAP2, 0)
    first = [name for bit, name in enumerate(HWCAP) if bits >> bit & 1]
    return (*first, *(name for bit, name in enumerate(HWCAP2) if further >> bit & 1))


class _Models:
    """The file that was answered last, loaded."""

    def __init__(self) -> None:
        self._key: tuple[Any, ...] = ()
        self._model: Any = None

    def get(self, request: dict[str, Any]) -> Any:
        path = Path(request["model"])
        told = path.stat()
        key = (str(path), told.st_mtime_ns, told.st_size, request["kind"], request["exact"], request["threads"])
        if key != self._key:
            from edgemill.emulate.kernels import open_kernels

            self._model = None
            self._model = open_kernels(path, request["kind"], request["exact"], request["threads"])
            self._key = key
        return self._model


def _answer(request: dict[str, Any], models: _Models) -> dict[str, Any]:
    from edgemill.errors import EdgemillError, InvariantError

    operations = {"hello": _hello, "predict": _predict, "trace": _trace}
    try:
        if request["op"] not in operations:
            raise InvariantError("The guest knows no such operation.", got=str(request["op"]))
        return {"ok": operations[request["op"]](request, models)}
    except EdgemillError as error:
        return {"error": error.to_dict()}
    except Exception as error:  # noqa: BLE001 - whatever was raised must reach the host as an answer
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}".replace("\n", "; ")[:500]
        return {"error": InvariantError("The guest failed in a way that was not foreseen.", got=text).to_dict()}


def _hello(request: dict[str, Any], models: _Models) -> dict[str, Any]:
    from importlib import import_module, metadata

    versions = {}
    for name, module in zip(_VERSIONS, ("numpy", "onnxruntime", "ai_edge_litert.interpreter"), strict=True):
        try:
            import_module(module)
            versions[name] = metadata.version(name)
        except ImportError:
            versions[name] = "absent"
    arm = platform.machine() == "aarch64"
    return {
        "protocol": PROTOCOL,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "features": list(hardware_features()) if arm else _numpy_features(),
        "versions": versions,
    }


def _numpy_features() -> list[str]:
    # numpy asks the CPU itself; /proc/cpuinfo inside qemu-x86_64 is the host's
    from importlib import import_module

    core: Any = import_module("numpy._core._multiarray_umath")
    return sorted(name.lower() for name, there in core.__cpu_features__.items() if there)


def _predict(request: dict[str, Any], models: _Models) -> dict[str, Any]:
    import numpy as np

    answer = models.get(request).predict(np.load(request["x"]))
    np.save(request["out"], np.ascontiguousarray(answer, dtype=np.float32))
    return {"samples": len(answer)}


def _trace(request: dict[str, Any], models: _Models) -> dict[str, Any]:
    import numpy as np

    from edgemill.emulate.trace import trace

    model, out = Path(request["model"]), Path(request["out"])
    tensors = trace(model, request["kind"], np.load(request["x"]), request["exact"], request["threads"])
    for index, values in enumerate(tensors.values()):
        np.save(out / f"{index}.npy", values)
    return {"names": list(tensors)}


def _write_cpuinfo(path: Path, part: str) -> None:
    # Runtimes read /proc/cpuinfo, which the emulator takes from its prefix. It has to say what the emulated
    # CPU can do: with the host's file onnxruntime dies at import, with one that claims more than -cpu has
    # XNNPACK executes instructions that are not there.
    features = " ".join(hardware_features())
    path.write_text(
        f"processor\t: 0\nBogoMIPS\t: 100.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\n"
        f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 3\n\n",
        encoding="ascii",
    )


def _leave_with_parent(folder: Path) -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1.0)
    _leave(folder)


def _leave(folder: Path) -> None:
    with _LEAVING:  # never let go: whoever comes second must not end the process half-way
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)


if __name__ == "__main__":
    main()
