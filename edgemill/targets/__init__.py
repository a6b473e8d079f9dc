"""The catalog of targets: one YAML file per device class."""

from edgemill.targets.catalog import load_target, target_names
from edgemill.targets.provenance import provenance
from edgemill.targets.spec import Target

__all__ = ["Target", "load_target", "provenance", "target_names"]
