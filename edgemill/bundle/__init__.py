"""The family bundle: every variant of a model that may ship to one target, and what is known of each."""

from edgemill.bundle.manifest import MANIFEST, BundledVariant, Manifest
from edgemill.bundle.reader import read_bundle
from edgemill.bundle.writer import Origin, write_bundle

__all__ = ["MANIFEST", "BundledVariant", "Manifest", "Origin", "read_bundle", "write_bundle"]
