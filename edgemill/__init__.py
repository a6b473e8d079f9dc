"""Edgemill: from one training checkpoint to verified models for every edge device."""

__version__ = "0.1.0"
