"""The catalog of targets: one YAML file per device class."""

from edgemill.targets.provenance import provenance
from edgemill.targets.spec import Target, load_target, target_names

__all__ = ["Target", "load_target", "provenance", "target_names"]
