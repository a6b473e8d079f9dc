"""Inference runtimes: one adapter per file, the same on the host and on the device."""
