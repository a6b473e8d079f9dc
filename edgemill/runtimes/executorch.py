"""ExecuTorch on the CPU, with XNNPACK's kernels."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
from executorch.runtime import Runtime as ExecuTorchRuntime
from executorch.runtime import Verification
from numpy.typing import NDArray

from edgemill.artifact import Signature, TensorSpec
from edgemill.errors import ToolchainError
from edgemill.runtimes.base import LoadedModel, Runtime
from edgemill.runtimes.single import SingleSample

_METHOD = "forward"
_DTYPES = {6: "float32"}
"""By the number that ExecuTorch's schema gives a type."""


class ExecuTorchModel(SingleSample):
    """A .pte file, loaded."""

    runtime = "ExecuTorch"

    def __init__(self, path: Path, signature: Signature | None = None, threads: int = 1) -> None:
        """Load `path`.

        Args:
            path: the file.
            signature: what it takes and gives; None: read it from the file, which names neither.
            threads: of one inference; ExecuTorch has one pool for the whole process.

        Raises:
            ToolchainError: it cannot be loaded.
        """
        try:
            _unsafe_reset_threadpool(threads)  # unsafe while a model runs, and none does
            program = ExecuTorchRuntime.get().load_program(str(path), verification=Verification.InternalConsistency)
            method = program.load_method(_METHOD)
        except Exception as error:  # ExecuTorch raises RuntimeError and more
            raise ToolchainError("ExecuTorch cannot load the model.", where=str(path), got=_line(error)) from error
        if method is None:
            raise ToolchainError("The model has no method to run.", where=str(path), expected=_METHOD)
        self._program, self._method = program, method  # the method lies in the program's memory
        super().__init__(path, signature or _read(method, path))

    def feed(self, stored: NDArray[np.generic]) -> Any:
        """See `SingleSample.feed`."""
        return [torch.from_numpy(np.ascontiguousarray(stored))]

    def infer(self, fed: Any) -> NDArray[np.generic]:
        """See `SingleSample.infer`."""
        try:
            output: NDArray[np.generic] = self._method.execute(fed)[0].numpy().copy()  # the next call writes into it
        except Exception as error:  # as above
            raise ToolchainError(
                "ExecuTorch failed to run the model.", where=str(self._path), got=_line(error)
            ) from error
        return output


class ExecuTorch:
    """Loads .pte files."""

    name = "executorch"
    kinds: tuple[str, ...] = ("executorch",)

    def load(self, path: Path, threads: int = 1) -> LoadedModel:
        """See `Runtime.load`."""
        return ExecuTorchModel(path, threads=threads)

    def version(self) -> str:
        """See `Runtime.version`."""
        return metadata.version("executorch")


RUNTIME: Runtime = ExecuTorch()


def _read(method: Any, path: Path) -> Signature:
    told = method.metadata

    def spec(name: str, tensor: Any) -> TensorSpec:
        if tensor.dtype() not in _DTYPES:
            raise ToolchainError("The model's input or output is not float32.", where=str(path), got=str(tensor))
        return TensorSpec(name=name, dtype=_DTYPES[tensor.dtype()], shape=tuple(tensor.sizes()))

    return Signature(
        inputs=tuple(spec(f"input{i}", told.input_tensor_meta(i)) for i in range(told.num_inputs())),
        outputs=tuple(spec(f"output{i}", told.output_tensor_meta(i)) for i in range(told.num_outputs())),
    )


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]
