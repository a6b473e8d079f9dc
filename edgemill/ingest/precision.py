"""Keras files trained in mixed or half precision, read in float32: the form in which every stage works."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import h5py

from edgemill.ingest.detect import Format

_OTHER = {"mixed_float16", "mixed_bfloat16", "float16", "bfloat16", "float64"}
_POLICIES = {"Policy", "PolicyV1", "DTypePolicy", "FloatDTypePolicy"}


def float32_copy(path: Path, form: Format, config: Any, copy: Path) -> list[str]:
    """Copy a Keras file, with every floating-point policy of its configuration set to float32.

    Args:
        path: the file.
        form: which kind of Keras file.
        config: its configuration (JSON value).
        copy: file to write.

    Returns:
        The precisions that were replaced, sorted.
    """
    found: set[str] = set()
    changed = _float32(config, found)
    shutil.copyfile(path, copy)
    copy.chmod(0o600)
    if not found:
        return []
    if form in (Format.KERAS2_H5, Format.KERAS3_H5):
        with h5py.File(copy, "r+") as file:
            file.attrs["model_config"] = json.dumps(changed)
    else:
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
            for name in source.namelist():
                target.writestr(name, json.dumps(changed) if name == "config.json" else source.read(name))
    return sorted(found)


def _float32(node: Any, found: set[str]) -> Any:
    if isinstance(node, list):
        return [_float32(item, found) for item in node]
    if not isinstance(node, dict):
        return node
    changed = {key: _float32(item, found) for key, item in node.items()}
    config = changed.get("config")
    if changed.get("class_name") in _POLICIES and isinstance(config, dict) and config.get("name") in _OTHER:
        found.add(config["name"])
        changed["config"] = config | {"name": "float32"}
    if isinstance(changed.get("dtype"), str) and changed["dtype"] in _OTHER:
        found.add(changed["dtype"])
        changed["dtype"] = "float32"
    return changed
