"""RKNN's simulator of Rockchip's NPUs.

It runs only what was built in the same process: a file that `load_rknn` reads back is refused ("not support
inference on the simulator", rknn-toolkit2 2.5). So what answers is a folder with everything of which the file was
built, and loading it builds it again.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from rknn.api import RKNN

from edgemill.artifact import Signature
from edgemill.errors import ToolchainError
from edgemill.runtimes.base import LoadedModel, Runtime
from edgemill.runtimes.onnxruntime import OnnxRuntimeModel, session_options
from edgemill.runtimes.single import SingleSample

MODEL, SAMPLES, SETTINGS = "model.onnx", "samples.npy", "build.json"
"""Names in the folder: the graph, calibration samples (only where RKNN quantizes), and how it is built."""

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class RknnModel(SingleSample):
    """A model that was built for one of Rockchip's NPUs and runs in the simulator."""

    runtime = "RKNN"

    def __init__(self, path: Path) -> None:
        """Build the model of folder `path` and start the simulator.

        Raises:
            ToolchainError: RKNN cannot build it, or the simulator does not start.
        """
        signature = single_signature(path / MODEL)
        super().__init__(path, signature)
        with tempfile.TemporaryDirectory() as folder:
            self._rknn = build(path, signature, Path(folder))
        with _told("start the simulator", path):
            _check(self._rknn.init_runtime(), "init_runtime")

    def feed(self, stored: NDArray[np.generic]) -> Any:
        """See `SingleSample.feed`."""
        return stored

    def infer(self, fed: Any) -> NDArray[np.generic]:
        """See `SingleSample.infer`."""
        with _told("run the model", self._path):
            # the layout of the graph as it is; "nhwc" would be turned
            outputs = self._rknn.inference(inputs=[fed], data_format=["nchw"])
        if not outputs:
            raise ToolchainError("RKNN's simulator gave no answer.", where=str(self._path))
        found: NDArray[np.generic] = np.asarray(outputs[0])
        wanted = self.signature.outputs[0]
        if found.dtype.name != wanted.dtype:
            raise ToolchainError(
                "RKNN answers in another type than the model.",
                where=str(self._path),
                expected=wanted.dtype,
                got=found.dtype.name,
            )
        return found

    def export(self, path: Path) -> None:
        """Write the file that the device loads.

        Raises:
            ToolchainError: it cannot be written.
        """
        with _told("write the file", path):
            _check(self._rknn.export_rknn(str(path)), "export_rknn")


class Rknn:
    """Loads folders with what an RKNN file is built of."""

    name = "rknn"
    kinds: tuple[str, ...] = ("rknn-source",)

    def load(self, path: Path, threads: int = 1) -> LoadedModel:
        """See `Runtime.load`; the simulator has no threads to choose."""
        return RknnModel(path)

    def version(self) -> str:
        """See `Runtime.version`."""
        return metadata.version("rknn-toolkit2")


RUNTIME: Runtime = Rknn()


def single_signature(path: Path) -> Signature:
    """Signature of an ONNX file, for one sample a call."""
    options = session_options(threads=1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    free = OnnxRuntimeModel(path, options).signature
    return Signature(
        inputs=tuple(spec.model_copy(update={"shape": (1, *spec.shape[1:])}) for spec in free.inputs),
        outputs=tuple(spec.model_copy(update={"shape": (1, *spec.shape[1:])}) for spec in free.outputs),
    )


def build(source: Path, signature: Signature, folder: Path) -> Any:
    """Build a model; `folder` gets the calibration samples as RKNN wants them.

    Raises:
        ToolchainError: RKNN cannot load or build it.
    """
    try:
        settings = json.loads((source / SETTINGS).read_text(encoding="utf-8"))
        platform, level = str(settings["platform"]), int(settings["optimization_level"])
    except (OSError, ValueError, KeyError) as error:
        raise ToolchainError("How the model is built cannot be read.", where=str(source), got=str(error)) from error
    source, folder, entry = source.absolute(), folder.absolute(), signature.inputs[0]
    samples = _sample_list(source / SAMPLES, folder) if (source / SAMPLES).exists() else None
    log = folder / "log.txt"
    rknn = RKNN(verbose=True, verbose_file=str(log))  # only then it writes why it fails
    # while it builds, it leaves its intermediate graphs in the current folder
    with _told("build the model", source), chdir(folder):
        _check(rknn.config(target_platform=platform, optimization_level=level), "config", log)
        sizes = [[int(size or 1) for size in entry.shape]]
        _check(rknn.load_onnx(str(source / MODEL), inputs=[entry.name], input_size_list=sizes), "load_onnx", log)
        _check(rknn.build(do_quantization=samples is not None, dataset=samples and str(samples)), "build", log)
    return rknn


def _sample_list(path: Path, folder: Path) -> Path:
    """A file that names every sample; absolute, because RKNN looks beside the list otherwise."""
    names = []
    for number, sample in enumerate(np.load(path)):
        name = folder.absolute() / f"{number}.npy"
        np.save(name, sample[None])
        names.append(str(name))
    listed = folder / "samples.txt"
    listed.write_text("\n".join(names) + "\n", encoding="utf-8")
    return listed


def _check(status: int, call: str, log: Path | None = None) -> None:
    if status != 0:
        text = log.read_text(encoding="utf-8", errors="replace") if log is not None and log.exists() else ""
        told = [line.strip() for line in _COLOURS.sub("", text).splitlines() if line.startswith("E ")]
        raise ValueError(f"{call} returned {status}" + (f": {told[-1][2:]}" if told else ""))


@contextmanager
def _told(what: str, where: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # RKNN raises whatever its log says, and plain exceptions
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ToolchainError(
            f"RKNN cannot {what}.", where=str(where), got=" | ".join(lines[-2:])[-300:] or type(error).__name__
        ) from error
