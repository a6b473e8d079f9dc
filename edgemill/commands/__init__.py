"""Subcommands of `edgemill`, one file each. Heavy imports wait until a command runs."""
