"""ncnn on the CPU."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import ncnn
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edgemill.artifact import Frozen, Signature
from edgemill.errors import ToolchainError
from edgemill.runtimes.base import LoadedModel, Runtime
from edgemill.runtimes.single import SingleSample

GRAPH = "model.param"
"""Name of the graph in the folder."""
WEIGHTS = "model.bin"
DESCRIPTION = "model.json"


class Description(Frozen):
    """What ncnn's own files do not say."""

    signature: Signature
    half: bool
    """Whether the device may store and calculate in half precision; ncnn does so if it is not told otherwise."""


class NcnnModel(SingleSample):
    """A folder with a graph, its weights and their description."""

    runtime = "ncnn"

    def __init__(self, path: Path, threads: int) -> None:
        """Load folder `path` for inference on `threads` threads."""
        description = _describe(path)
        super().__init__(path, description.signature)
        net = ncnn.Net()
        options = net.opt
        options.num_threads = threads
        options.openmp_blocktime = 0  # spinning threads would steal the core of whatever runs beside the model
        options.use_vulkan_compute = False
        for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
            setattr(options, name, description.half)
        options.use_bf16_packed = options.use_bf16_storage = False
        for load, name in ((net.load_param, GRAPH), (net.load_model, WEIGHTS)):
            if not (path / name).is_file() or load(str(path / name)) != 0:
                raise ToolchainError(
                    "ncnn cannot load the model.",
                    where=str(path / name),
                    got="no such file" if not (path / name).is_file() else "a file that ncnn refuses",
                )
        self._net = net
        self._names = self.signature.inputs[0].name, self.signature.outputs[0].name
        if self._names[0] not in net.input_names() or self._names[1] not in net.output_names():
            raise ToolchainError(
                "The graph does not have the inputs and outputs of its description.",
                where=str(path / GRAPH),
                expected=" -> ".join(self._names),
                got=f"{', '.join(net.input_names())} -> {', '.join(net.output_names())}",
            )

    def feed(self, stored: NDArray[np.generic]) -> Any:
        """See `SingleSample.feed`; ncnn knows no batch."""
        return ncnn.Mat(stored[0]).clone()

    def infer(self, fed: Any) -> NDArray[np.generic]:
        """See `SingleSample.infer`."""
        extractor = self._net.create_extractor()
        extractor.input(self._names[0], fed)
        status, output = extractor.extract(self._names[1])
        if status != 0:
            raise ToolchainError("ncnn failed to run the model.", where=str(self._path), got=f"status {status}")
        return np.array(output)[None]


class Ncnn:
    """Loads folders with ncnn's graph and weights."""

    name = "ncnn"
    kinds: tuple[str, ...] = ("ncnn",)

    def load(self, path: Path, threads: int = 1) -> LoadedModel:
        """See `Runtime.load`."""
        return NcnnModel(path, threads)

    def version(self) -> str:
        """See `Runtime.version`."""
        return metadata.version("ncnn")


RUNTIME: Runtime = Ncnn()


def _describe(path: Path) -> Description:
    try:
        return Description.model_validate_json((path / DESCRIPTION).read_bytes())
    except (OSError, ValidationError) as error:
        raise ToolchainError(
            "The folder holds no ncnn model of Edgemill.",
            where=str(path),
            expected=f"{GRAPH}, {WEIGHTS} and {DESCRIPTION}",
            got=" ".join(str(error).split())[:300],
        ) from error
