"""What is on a board. Sent to its interpreter as it is, so it must run on any Python 3 and import nothing else.

`python - FOLDER DIGEST MODULE=DISTRIBUTION...` tells one JSON object, see `edgemill.boards.contact.Told`.
"""

import json
import os
import platform
import shutil
import struct
import sys


def _features() -> object:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:  # noqa: PTH123 - any Python
            for line in stream:
                name, _, value = line.partition(":")
                if name.strip() in ("flags", "Features"):
                    return value.split()
    except OSError:
        pass
    return []


def _module(name: str, distribution: str) -> object:
    """Version of a module's distribution, "" where it is of another one, None where the module is not there."""
    try:
        from importlib import metadata, util
    except ImportError:  # before Python 3.8
        return None
    if util.find_spec(name) is None:
        return None
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _main(folder: str, digest: str, *modules: str) -> None:
    told = {
        "machine": platform.machine(),
        "bits": 8 * struct.calcsize("P"),
        "features": _features(),
        "python": list(sys.version_info[:3]),
        "has_package": os.path.isfile(os.path.join(folder, "packages", digest, "edgemill", "__init__.py")),  # noqa: PTH113, PTH118
        "has_keygen": shutil.which("ssh-keygen") is not None,
        "modules": {name: _module(name, of) for name, _, of in (item.partition("=") for item in modules)},
    }
    sys.stdout.write(json.dumps(told) + "\n")


_main(*sys.argv[1:])
