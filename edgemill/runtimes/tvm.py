"""Apache TVM's virtual machine on the CPU."""

from __future__ import annotations

import ctypes
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from pydantic import ValidationError

from edgemill.artifact import Signature
from edgemill.errors import ToolchainError
from edgemill.runtimes.base import LoadedModel, Runtime
from edgemill.runtimes.single import SingleSample, last_words

SIGNATURE = "edgemill_signature"
"""Symbol in the library: the signature as JSON text that ends with a zero byte. TVM itself stores no shapes."""
FUNCTION = "main"
_ONE_CLUSTER = 1
"""Cores are not told apart: TVM's default binds its threads to the fastest ones."""


class TvmModel(SingleSample):
    """A shared library that TVM has compiled, in its virtual machine."""

    runtime = "TVM"

    def __init__(self, path: Path, threads: int) -> None:
        """Load library `path`; the number of threads is one for the whole process."""
        try:
            module = tvm.runtime.load_module(str(path.absolute()))
            signature = _signature(path)
            self._machine = tvm.runtime.vm.VirtualMachine(module, tvm.cpu())
            self._function = self._machine[FUNCTION]
        except (OSError, RuntimeError, ValueError, AttributeError, ValidationError) as error:
            raise ToolchainError(
                "TVM cannot load the model.",
                where=str(path),
                expected="a library that Edgemill has compiled with TVM for this kind of machine",
                got=last_words(str(error)) or type(error).__name__,
            ) from error
        super().__init__(path, signature)
        tvm.get_global_func("runtime.config_threadpool")(_ONE_CLUSTER, threads)

    def feed(self, stored: NDArray[np.generic]) -> Any:
        """See `SingleSample.feed`."""
        return tvm.runtime.tensor(stored)

    def infer(self, fed: Any) -> NDArray[np.generic]:
        """See `SingleSample.infer`."""
        output = self._function(fed)
        answer: NDArray[np.generic] = (output if hasattr(output, "numpy") else output[0]).numpy()
        return answer


class Tvm:
    """Loads libraries that TVM has compiled."""

    name = "apache-tvm"
    kinds: tuple[str, ...] = ("tvm",)

    def load(self, path: Path, threads: int = 1) -> LoadedModel:
        """See `Runtime.load`."""
        return TvmModel(path, threads)

    def version(self) -> str:
        """See `Runtime.version`."""
        return metadata.version("apache-tvm")


RUNTIME: Runtime = Tvm()


def _signature(path: Path) -> Signature:
    library = ctypes.CDLL(str(path.absolute()))
    text = ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll(library, SIGNATURE)))
    return Signature.model_validate_json(text)
