"""IREE's virtual machine on the CPU."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import iree.runtime as iree
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edgemill.artifact import Signature
from edgemill.errors import ToolchainError
from edgemill.runtimes.base import LoadedModel, Runtime
from edgemill.runtimes.single import SingleSample, last_words

SIGNATURE = "edgemill.signature"
"""Key in the function's reflection table: the signature as JSON text, because IREE keeps no shapes of such models."""
FUNCTION = "model"
_ONE_THREAD, _MANY_THREADS = "local-sync", "local-task"


class IreeModel(SingleSample):
    """A module of IREE with machine code for this kind of CPU."""

    runtime = "IREE"

    def __init__(self, path: Path, threads: int) -> None:
        """Load module `path`; the number of threads, where more than one, is the same for the whole process."""
        try:
            if threads > 1:
                iree.flags.parse_flags(f"--task_topology_group_count={threads}")
            config = iree.Config(device=_device(threads))
            # a copy: what the module is mapped from may be removed while it is in use
            module = iree.VmModule.copy_buffer(config.vm_instance, path.read_bytes())
            told = module.lookup_function(FUNCTION).reflection.get(SIGNATURE, "")
            signature = Signature.model_validate_json(told)
            self._function = iree.load_vm_module(module, config)[FUNCTION]
        except (OSError, RuntimeError, ValueError, KeyError, AttributeError, ValidationError) as error:
            raise ToolchainError(
                "IREE cannot load the model.",
                where=str(path),
                expected="a module that Edgemill has compiled with IREE for this kind of machine",
                got=last_words(str(error)) or type(error).__name__,
            ) from error
        super().__init__(path, signature)
        self._device = config.device

    def feed(self, stored: NDArray[np.generic]) -> Any:
        """See `SingleSample.feed`."""
        return iree.asdevicearray(self._device, stored)

    def infer(self, fed: Any) -> NDArray[np.generic]:
        """See `SingleSample.infer`."""
        # to_host gives a view of device memory, and a slice of it does not keep that from the next calls
        answer: NDArray[np.generic] = self._function(fed).to_host().copy()
        return answer


class Iree:
    """Loads modules that IREE has compiled."""

    name = "iree-base-runtime"
    kinds: tuple[str, ...] = ("iree",)

    def load(self, path: Path, threads: int = 1) -> LoadedModel:
        """See `Runtime.load`."""
        return IreeModel(path, threads)

    def version(self) -> str:
        """See `Runtime.version`."""
        return metadata.version("iree-base-runtime")


RUNTIME: Runtime = Iree()


def _device(threads: int) -> Any:
    if threads == 1:
        return iree.get_device(_ONE_THREAD)
    return iree.get_driver(_MANY_THREADS).create_default_device()
