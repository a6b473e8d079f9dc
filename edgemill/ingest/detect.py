"""Which format a checkpoint has, found from its content. Imports no framework."""

from __future__ import annotations

import json
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from edgemill.errors import CheckpointError
from edgemill.ingest.hdf5_probe import probe_hdf5
from edgemill.ingest.wire import TruncatedError, looks_like_onnx

ACCEPTED = (
    "Keras 2 .h5 or .keras, Keras 3 .keras, SavedModel folder, TensorFlow checkpoint with checkpoint.model_function, "
    "ONNX, float TFLite"
)
_PICKLE_REMEDY = (
    "export instead: PyTorch -> torch.onnx.export(model, example, 'model.onnx', dynamo=True); "
    "scikit-learn -> skl2onnx; Keras -> model.save('model.keras')"
)
_HEAD = 4096


class Format(StrEnum):
    """What a checkpoint is."""

    KERAS2_H5 = "keras2-h5"
    KERAS2_ZIP = "keras2-zip"
    KERAS3_H5 = "keras3-h5"
    """Keras 3's `legacy` HDF5 file."""
    KERAS3_ZIP = "keras3-zip"
    SAVED_MODEL = "saved-model"
    TF_CHECKPOINT = "tf-checkpoint"
    ONNX = "onnx"
    TFLITE = "tflite"


def detect(path: Path) -> Format:
    """The format of a checkpoint file or folder; the name's extension is not looked at.

    Raises:
        CheckpointError: there is nothing, or it is empty, truncated, a pickle, or no accepted format.
    """
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        if index_of(path).is_file():
            return Format.TF_CHECKPOINT
        raise _refusal(path, "There is no such checkpoint.", "nothing", "check checkpoint.path")
    if not path.is_file():
        raise _refusal(path, "A checkpoint is a file or a folder.", "neither file nor folder", "check checkpoint.path")
    try:
        return _file(path)
    except OSError as error:
        raise CheckpointError("The checkpoint cannot be read.", where=str(path), got=str(error)) from error


def index_of(prefix: Path) -> Path:
    """The index file of a TensorFlow checkpoint with this prefix."""
    return prefix.with_name(prefix.name + ".index")


def checkpoint_prefixes(folder: Path) -> list[Path]:
    """Prefixes of the TensorFlow checkpoints in a folder, sorted by name."""
    return [item.with_suffix("") for item in sorted(folder.glob("*.index")) if any(folder.glob(f"{item.stem}.data-*"))]


def onnx_files(folder: Path) -> list[Path]:
    """ONNX files directly in a folder, found by content."""
    return [item for item in _files(folder) if _is_onnx(item)]


def _folder(path: Path) -> Format:
    if (path / "saved_model.pb").is_file():
        if (path / "saved_model.pb").stat().st_size == 0:
            raise _refusal(path / "saved_model.pb", "The SavedModel is empty.", "a file of 0 bytes", "copy it again")
        return Format.SAVED_MODEL
    if (path / "saved_model.pbtxt").is_file():
        raise _refusal(path, "The SavedModel is in text form.", "saved_model.pbtxt", "save it in binary form")
    if checkpoint_prefixes(path):
        return Format.TF_CHECKPOINT
    models = onnx_files(path)
    if len(models) == 1:
        return Format.ONNX
    if len(models) > 1:
        names = ", ".join(item.name for item in models)
        raise _refusal(path, "The folder holds several ONNX models.", names, "give the path of one of them")
    if (path / "config.json").is_file() and (path / "metadata.json").is_file():
        raise _refusal(path, "This is an unpacked .keras archive.", "config.json", "give the .keras file")
    names = ", ".join(sorted(item.name for item in path.iterdir())[:8])
    raise _refusal(path, "The folder holds no checkpoint.", names or "an empty folder", "check checkpoint.path")


def _files(folder: Path) -> Iterator[Path]:
    return (item for item in sorted(folder.iterdir()) if item.is_file() and not item.is_symlink())


def _is_onnx(path: Path) -> bool:
    try:
        return looks_like_onnx(path)
    except (TruncatedError, OSError):
        return False


def _file(path: Path) -> Format:
    size = path.stat().st_size
    if size == 0:
        raise _refusal(path, "The checkpoint is empty.", "a file of 0 bytes", "copy it again")
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return _hdf5(path, head, size)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _archive(path)
    if head[4:8] == b"TFL3":
        return Format.TFLITE
    _refuse_known(path, head)
    if _is_pickle(head, size):
        raise _pickle(path, "a Python pickle")
    if _is_text(head):
        first = head.decode("utf-8", "replace").splitlines()[0][:60] if head.strip() else ""
        raise _refusal(path, "The checkpoint is a text file.", f"text, beginning {first!r}", "give the model file")
    try:
        if looks_like_onnx(path):
            return Format.ONNX
    except TruncatedError as error:
        raise _refusal(path, "The ONNX file is truncated.", str(error), "copy or export it again") from error
    got = f"{size} bytes beginning {head[:8].hex(' ')}"
    raise _refusal(path, "The checkpoint has no known format.", got, "export it again")


def _refusal(path: Path, what: str, got: str, remedy: str) -> CheckpointError:
    return CheckpointError(what, where=str(path), expected=ACCEPTED, got=got, remedy=remedy)


def _pickle(path: Path, got: str) -> CheckpointError:
    return CheckpointError(
        "A pickle is refused: loading one runs whatever code its author put in.",
        where=str(path),
        expected=ACCEPTED,
        got=got,
        remedy=_PICKLE_REMEDY,
    )


def _refuse_known(path: Path, head: bytes) -> None:
    """Refuse by name what is often taken for a checkpoint."""
    if head.startswith(b"\x80") and len(head) > 1 and head[1] in range(2, 6):
        raise _pickle(path, f"a Python pickle, protocol {head[1]}")
    if head.startswith(b"ZF") or _unpacked(head)[:1] == b"\x80":
        raise _pickle(path, "a compressed Python pickle (joblib)")
    known = {
        b"version https://git-lfs": ("a Git LFS pointer", "fetch the content with `git lfs pull`"),
        b"\x93NUMPY": ("a NumPy array", "give a model, not its weights"),
        b"GGUF": ("GGUF", "give the model it was made from"),
        b"\x1f\x8b": ("a gzip file", "unpack it first"),
        b"BZh": ("a bzip2 file", "unpack it first"),
        b"\xfd7zXZ": ("an xz file", "unpack it first"),
    }
    for magic, (name, remedy) in known.items():
        if head.startswith(magic):
            raise _refusal(path, f"The checkpoint is {name}.", name, remedy)
    if head[257:262] == b"ustar":
        raise _refusal(path, "The checkpoint is a tar archive.", "a tar archive", "unpack it first")
    if len(head) > 9 and head[8:9] == b"{" and 2 <= struct.unpack("<Q", head[:8])[0] < 1 << 27:
        raise _refusal(path, "The checkpoint is weights only.", "safetensors", "give a model with its architecture")


def _unpacked(head: bytes) -> bytes:
    """The first bytes behind zlib or gzip compression, empty if it is neither."""
    try:
        return zlib.decompressobj(wbits=47).decompress(head, 64)
    except zlib.error:
        return b""


def _is_pickle(head: bytes, size: int) -> bool:
    """Whether this is a pickle of protocol 0 or 1, which has no magic number."""
    if size > _HEAD:  # only its beginning is here: at least 20 opcodes must be well formed
        count = 0
        try:
            for _ in pickletools.genops(head):
                count += 1
        except (ValueError, OverflowError, UnicodeDecodeError):
            return count >= 20 and head[:1] in b"(cl]d}"
        return False
    try:
        opcodes = list(pickletools.genops(head))
    except (ValueError, OverflowError, UnicodeDecodeError):
        return False
    return opcodes[-1][0].name == "STOP" and opcodes[-1][2] == size - 1


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        text = head[: _HEAD - 4].decode("utf-8") if len(head) == _HEAD else head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 8:
            return False
        text = head[: error.start].decode("utf-8")
    return all(c.isprintable() or c in "\r\n\t\f" for c in text)


def _hdf5(path: Path, head: bytes, size: int) -> Format:
    end = _hdf5_end(head)
    if end is not None and end > size:
        raise _refusal(path, "The HDF5 file is truncated.", f"{size} bytes of {end}", "copy or save it again")
    contents = probe_hdf5(path)
    if "model_config" not in contents.attributes:
        weights = {"layers", "_layer_checkpoint_dependencies", "model_weights", "vars"} & set(contents.groups)
        if weights or "layer_names" in contents.attributes:
            got = "weights without an architecture"
        else:
            got = f"HDF5 with {', '.join(contents.groups[:6]) or 'nothing'} in it"
        raise _refusal(path, "The HDF5 file holds no Keras model.", got, "save the model: model.save('model.keras')")
    return Format.KERAS3_H5 if _major(contents.keras_version or "2") >= 3 else Format.KERAS2_H5


def _hdf5_end(head: bytes) -> int | None:
    """End-of-file address in the superblock (HDF5 specification, II.A), None where it cannot be told."""
    if len(head) < 64:
        return 64
    version = head[8]
    if version in (0, 1) and head[13] == 8:
        offset = 40 if version == 0 else 44
    elif version in (2, 3) and head[9] == 8:
        offset = 28
    else:
        return None
    return int(struct.unpack_from("<Q", head, offset)[0])


def _major(version: str) -> int:
    number = version.partition(".")[0]
    return int(number) if number.isdigit() else 2


def _archive(path: Path) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "config.json" in names and "metadata.json" in names:
                return _keras_archive(path, archive)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(
            "The archive is truncated or damaged.",
            where=str(path),
            expected=ACCEPTED,
            got=f"a zip file that cannot be opened: {error}",
            remedy="copy or save it again",
        ) from error
    if any(name.endswith((".pkl", ".pickle")) for name in names):
        raise _pickle(path, "a PyTorch file (zip with pickles)")
    if any(name.endswith(".npy") for name in names):
        raise _refusal(path, "The checkpoint is a NumPy archive.", "an .npz file", "give a model, not its weights")
    if any(name.endswith("saved_model.pb") for name in names):
        raise _refusal(path, "The checkpoint is a zipped SavedModel.", "a zip file", "unpack it and give the folder")
    got = f"a zip file with {', '.join(names[:6])}"
    raise _refusal(path, "The archive holds no Keras model.", got, "give a .keras file")


def _keras_archive(path: Path, archive: zipfile.ZipFile) -> Format:
    info = archive.getinfo("metadata.json")
    if info.file_size > 1 << 20:
        raise _refusal(path, "The archive is damaged.", f"metadata.json of {info.file_size} bytes", "save it again")
    try:
        metadata = json.loads(archive.read(info))
        version = str(metadata["keras_version"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            "The archive's metadata cannot be read.",
            where=f"{path}: metadata.json",
            expected="a keras_version",
            got=f"{type(error).__name__}: {error}",
            remedy="save the model again",
        ) from error
    return Format.KERAS3_ZIP if _major(version) >= 3 else Format.KERAS2_ZIP
