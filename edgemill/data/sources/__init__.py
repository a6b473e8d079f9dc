"""Readers of data sources, one file each: `read(data) -> Source`."""
