"""Targets that this machine can try; tests of the others are skipped by name."""

import pytest

from edgemill.lack import told
from edgemill.targets import load_target
from edgemill.targets.capability import blockers


def usable(name):
    """A target that lacks nothing here; else the test is skipped, with the command that gets what is missing."""
    target = load_target(name)
    if lacks := blockers(target):
        pytest.skip(f"{name}: {told(lacks)}")
    return target
