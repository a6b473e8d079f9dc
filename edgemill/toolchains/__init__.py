"""Toolchains: compilers and runtimes in environments of their own, made on demand from a lock file."""

from edgemill.toolchains.places import Installed, installed
from edgemill.toolchains.spec import Toolchain, load_toolchain, toolchain_names

__all__ = ["Installed", "Toolchain", "installed", "load_toolchain", "toolchain_names"]
