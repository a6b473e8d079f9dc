"""Model files opened in a toolchain's environment, as if they were opened here."""

import json
import os
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np

import edgemill
from edgemill.artifact import Signature
from edgemill.errors import error_from_dict
from edgemill.toolchains import installed

_SERVER = """
import json, sys
import numpy as np
from pathlib import Path
from edgemill.errors import EdgemillError
from edgemill.runtimes import open_model, runtime_of
kept = []
def answer(job):
    if job["do"] == "version":
        runtime = runtime_of(job["kind"])
        return {"name": runtime.name, "version": runtime.version(), "kinds": list(runtime.kinds)}
    if job["do"] == "modules":
        return {"modules": sorted(sys.modules)}
    if job["do"] == "open":
        kept.append(open_model(Path(job["path"]), job["kind"], job["threads"]))
        return {"number": len(kept) - 1, "signature": kept[-1].signature.model_dump(mode="json")}
    if job["do"] == "call":
        np.save(job["answer"], kept[job["number"]]())
        return {}
    x = np.load(job["x"])
    if job["do"] == "prepare":
        kept.append(kept[job["number"]].prepare(x))
        return {"number": len(kept) - 1}
    np.save(job["answer"], kept[job["number"]].predict(x))
    return {}
for line in sys.stdin:
    try:
        said = answer(json.loads(line))
    except EdgemillError as error:
        said = {"error": error.to_dict()}
    print(json.dumps(said), flush=True)
"""


class Remote:
    """A process in the environment of a toolchain. Use as a context manager."""

    def __init__(self, toolchain):
        self.folder = tempfile.TemporaryDirectory()
        alone = Path(self.folder.name) / "edgemill-alone"
        alone.mkdir()
        (alone / "edgemill").symlink_to(Path(edgemill.__file__).parent)
        self.environment = os.environ | {"PYTHONPATH": str(alone)}
        self.python = installed(toolchain).python

    def __enter__(self):
        self.process = subprocess.Popen(
            [self.python, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self.environment,
        )
        return self

    def __exit__(self, *_):
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()
        self.folder.cleanup()

    def run(self, script, *arguments):
        """Run a script to its end in the environment, and return what it printed."""
        command = [self.python, "-c", script, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=self.environment).stdout

    def ask(self, **job):
        """Let the process do something; an error there is raised here."""
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the process died with {self.process.wait()} at {job}"
        said = json.loads(line)
        if "error" in said:
            raise error_from_dict(said["error"])
        return said

    def arrays(self, do, x, number):
        """Let the process do something with an array, and return its array, if it gives one."""
        given, answer = (Path(self.folder.name) / f"{name}.npy" for name in ("x", "answer"))
        if x is not None:
            np.save(given, x)
        said = self.ask(do=do, number=number, x=str(given), answer=str(answer))
        return said["number"] if "number" in said else np.load(answer)

    def open_model(self, path, kind, threads=1):
        """Like `edgemill.runtimes.open_model`."""
        said = self.ask(do="open", path=str(path), kind=kind, threads=threads)
        return _Model(self, said["number"], Signature.model_validate(said["signature"]))

    def runtime_of(self, kind):
        """Like `edgemill.runtimes.runtime_of`, for the name, the kinds and the version."""
        said = self.ask(do="version", kind=kind)
        return SimpleNamespace(name=said["name"], kinds=tuple(said["kinds"]), version=lambda: said["version"])


class _Model:
    def __init__(self, remote, number, signature):
        self._remote = remote
        self._number = number
        self.signature = signature

    def predict(self, x):
        return self._remote.arrays("predict", x, self._number)

    def prepare(self, x):
        number = self._remote.arrays("prepare", x, self._number)
        return lambda: self._remote.arrays("call", None, number)
