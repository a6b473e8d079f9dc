"""What an untrusted checkpoint may not do: run code, leave its archive, unpack to any size, hold NaN."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from edgemill.artifact import size_of
from edgemill.errors import CheckpointError

_TRUST = "set checkpoint.trust: true if you know who made the checkpoint and agree to run its code"
# Sub-packages of keras and tf_keras whose objects are plain building blocks of a model.
_PARTS = {
    "layers", "initializers", "regularizers", "constraints", "activations", "models", "engine", "ops",
    "dtype_policies", "mixed_precision", "random",
}  # fmt: skip
_MODELS = {"Functional", "Model", "Sequential", "DTypePolicy", "DTypePolicyMap", "QuantizedDTypePolicy"}
_RUNS_CODE = {
    "Lambda": "runs Python code stored in the checkpoint",
    "__lambda__": "runs Python code stored in the checkpoint",
    "TFSMLayer": "loads another file",
    "TorchModuleWrapper": "unpickles a PyTorch module",
    "JaxLayer": "runs code outside the checkpoint",
    "FlaxLayer": "runs code outside the checkpoint",
}
# Values without code that Keras writes with a class name of their own.
_VALUES = {
    "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__", "__keras_tensor__", "__tuple__",
    "__typespec__", "__complex__", "CompositeTensor", "TypeSpec", "TensorShape",
}  # fmt: skip
_NOT_LOADED = {"compile_config", "training_config"}
_OPERATIONS = (
    "math.", "nn.", "image.", "linalg.", "signal.", "__operators__.", "compat.v1.nn.", "compat.v1.shape",
    "compat.v1.transpose", "compat.v1.squeeze", "compat.v1.expand_dims", "compat.v1.gather",
)  # fmt: skip
_PLAIN_OPERATIONS = {
    "abs", "cast", "clip_by_value", "concat", "cos", "exp", "expand_dims", "fill", "gather", "identity", "matmul",
    "maximum", "minimum", "ones_like", "pad", "range", "repeat", "reshape", "reverse", "roll", "round", "shape", "sign",
    "sin", "slice", "split", "sqrt", "square", "squeeze", "stack", "strided_slice", "tanh", "tile", "transpose",
    "unstack", "where", "zeros_like", "add", "subtract", "multiply", "divide", "pow", "reduce_mean", "reduce_sum",
    "reduce_max", "reduce_min", "one_hot", "argmax",
}  # fmt: skip


@dataclass(frozen=True)
class Unsafe:
    """A part of a model's description that would run code, or read files, of someone else's choice."""

    layer: str
    kind: str
    reason: str


def unsafe_parts(config: Any, is_known: Callable[[str], bool]) -> list[Unsafe]:
    """Parts of a Keras model configuration (a JSON value) that need trust.

    Args:
        config: the whole configuration.
        is_known: whether a class name without a module, as older files write them, is Keras's own.
    """
    return list(dict.fromkeys(_walk(config, "model", is_known, 0)))


def require_safe(config: Any, is_known: Callable[[str], bool], trust: bool, where: str) -> list[Unsafe]:
    """The parts that need trust; empty for an ordinary model.

    Raises:
        CheckpointError: there are some and `trust` is False, or the configuration is nested absurdly deep.
    """
    found = unsafe_parts(config, is_known)
    if found and not trust:
        raise CheckpointError(
            "The checkpoint needs code that is not Keras's own.",
            where=where,
            expected="standard Keras layers",
            got="; ".join(f"layer {part.layer!r} ({part.kind}) {part.reason}" for part in found),
            remedy=_TRUST + ", or replace these layers by standard ones and save again",
        )
    return found


def _walk(node: Any, layer: str, is_known: Callable[[str], bool], depth: int) -> Iterator[Unsafe]:
    if depth > 200:
        raise CheckpointError(
            "The model's configuration is nested too deep.", where=layer, expected="at most 200 levels"
        )
    if isinstance(node, list):
        for item in node:
            yield from _walk(item, layer, is_known, depth + 1)
    if not isinstance(node, dict):
        return
    kind = node.get("class_name")
    config = node.get("config")
    if isinstance(kind, str):
        if isinstance(config, dict) and isinstance(config.get("name"), str):
            layer = config["name"]
        reason = _reason(kind, node, config, is_known)
        if reason is not None:
            yield Unsafe(layer, str(config) if kind == "function" else kind, reason)
    for key, item in node.items():
        if key not in _NOT_LOADED:
            yield from _walk(item, layer, is_known, depth + 1)


def _reason(kind: str, node: dict[str, Any], config: Any, is_known: Callable[[str], bool]) -> str | None:
    if kind in _RUNS_CODE:
        return _RUNS_CODE[kind]
    if kind in _VALUES:
        return None
    if isinstance(config, dict):
        if isinstance(config.get("vocabulary"), str):
            return f"reads the file {config['vocabulary']!r}"
        if kind in ("TFOpLambda", "SlicingOpLambda"):
            name = str(config.get("function"))
            harmless = name.startswith(_OPERATIONS) or name in _PLAIN_OPERATIONS
            return None if harmless else f"calls the TensorFlow function {name!r}"
    return _foreign(kind, node, config, is_known)


def _foreign(kind: str, node: dict[str, Any], config: Any, is_known: Callable[[str], bool]) -> str | None:
    """Why a named class or function is not Keras's own, None if it is."""
    module = node.get("module")
    registered = node.get("registered_name")
    if isinstance(registered, str) and ">" in registered:
        return f"is a custom class, registered as {registered!r}"
    if not isinstance(module, str):
        return None if is_known(kind) else "is a custom class"
    if kind == "function" and module == "builtins":
        return None if isinstance(config, str) and is_known(config) else "is a custom function"
    return None if _is_keras(module, kind) else f"is a custom class of module {module!r}"


def _is_keras(module: str, kind: str) -> bool:
    parts = [part for part in module.split(".") if part not in ("src", "api", "_v2", "v2")]
    if parts[:2] == ["tensorflow", "keras"]:
        parts = parts[1:]
    if not parts or parts[0] not in ("keras", "tf_keras"):
        return False
    return parts[1] in _PARTS if len(parts) > 1 else kind in _MODELS


def require_size(path: Path, limit: int) -> None:
    """Refuse what is too large, or not all here.

    Raises:
        CheckpointError: the file or folder has more bytes than `limit`, or holds a link out of it.
    """
    if path.is_dir():
        for item in path.rglob("*"):
            if item.is_symlink():
                raise CheckpointError(
                    "The checkpoint folder holds a symbolic link.",
                    where=str(item),
                    expected="plain files",
                    got=f"a link to {item.readlink()}",
                    remedy="copy the file itself into the folder",
                )
    found = size_of(path)
    if found > limit:
        raise _too_large(str(path), found, limit)


def _too_large(where: str, found: int, limit: int) -> CheckpointError:
    return CheckpointError(
        "The checkpoint is too large.",
        where=where,
        expected=f"at most {limit} bytes, unpacked",
        got=f"{found} bytes",
        remedy="raise checkpoint.max_bytes if this is really the model",
    )


def require_safe_archive(path: Path, limit: int) -> None:
    """Check every member of a zip file by reading it through.

    Raises:
        CheckpointError: a member's name leaves the archive, is a link, is encrypted or listed twice,
            does not match its checksum, or all together are larger than `limit` bytes.
    """
    total = 0
    seen: set[str] = set()
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                _require_safe_name(path, info, seen)
                with archive.open(info) as stream:
                    while block := stream.read(1 << 20):
                        total += len(block)
                        if total > limit:
                            raise _too_large(str(path), total, limit)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        raise CheckpointError(
            "The archive is truncated or damaged.",
            where=str(path),
            got=f"{type(error).__name__}: {error}",
            remedy="copy or save it again",
        ) from error


def _require_safe_name(path: Path, info: zipfile.ZipInfo, seen: set[str]) -> None:
    name = PurePosixPath(info.filename.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or ":" in (name.parts[0] if name.parts else ""):
        problem = "its name leaves the archive"
    elif stat.S_ISLNK(info.external_attr >> 16):
        problem = "it is a symbolic link"
    elif info.filename in seen:
        problem = "it is there twice"
    elif info.flag_bits & 1:
        problem = "it is encrypted"
    else:
        seen.add(info.filename)
        return
    raise CheckpointError(
        "The archive has a member that a Keras file never has.",
        where=str(path),
        expected="plain files inside the archive",
        got=f"{info.filename!r}: {problem}",
        remedy="save the model again with model.save('model.keras')",
    )


def require_safe_hdf5(file: h5py.File, where: str, limit: int) -> None:
    """Refuse what is too large, or not all in this file.

    Raises:
        CheckpointError: a link or dataset points out of the file, or the datasets are larger than `limit` bytes.
    """
    total = 0
    pending = [file]
    seen = set()
    while pending:
        group = pending.pop()
        for name in group:
            link = group.get(name, getlink=True)
            place = f"{where}: {group.name.rstrip('/')}/{name}"
            if not isinstance(link, h5py.HardLink):
                raise _points_outside(place, type(link).__name__)
            item = group[name]
            if isinstance(item, h5py.Group):
                if item.id.__hash__() not in seen:
                    seen.add(item.id.__hash__())
                    pending.append(item)
                continue
            if isinstance(item, h5py.Dataset):
                if item.is_virtual or item.external:
                    raise _points_outside(place, "data outside the file")
                total += item.nbytes
                if total > limit:
                    raise _too_large(place, total, limit)


def _points_outside(where: str, got: str) -> CheckpointError:
    return CheckpointError(
        "The HDF5 file points to something that is not its own data.",
        where=where,
        expected="datasets inside the file",
        got=got,
        remedy="save the model again",
    )


def require_finite(tensors: Iterable[tuple[str, NDArray[np.generic]]], where: str) -> None:
    """Refuse broken weights.

    Raises:
        CheckpointError: a tensor holds NaN or infinity, with the name and the count of each.
    """
    broken = []
    for name, values in tensors:
        if np.issubdtype(values.dtype, np.floating):
            count = int(values.size - np.isfinite(values).sum())
            if count:
                broken.append(f"{name}: {count} of {values.size}")
    if broken:
        more = f"; and {len(broken) - 8} more tensors" if len(broken) > 8 else ""
        raise CheckpointError(
            "The weights hold NaN or infinite values.",
            where=where,
            expected="finite numbers",
            got="; ".join(broken[:8]) + more,
            remedy="the training diverged: give an earlier checkpoint",
        )
