"""The power management chip of the Raspberry Pi 5, asked by `vcgencmd pmic_read_adc`.

The chip measures current and voltage of the rails it makes. It does not see what hangs on 5 V (USB,
HATs, NVMe) nor its own losses, so the figure is lower than that of a meter in the supply cable.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

from edgemill.benchmark.energy.meter import Covers, Found, PowerMeter, absent
from edgemill.errors import ToolchainError

NAME = "raspberry-pi-pmic"

_COMMAND = "vcgencmd"
_TIME_LIMIT_S = 5.0
_UPDATE_S = 0.1
_SCOPE = "regulated rails of the board, without USB, HATs and losses of the converters"
_LINE = re.compile(r"^\s*(?P<rail>\w+)_(?P<kind>[AV])\s+(?:current|volt)\(\d+\)=(?P<value>\d+(?:\.\d+)?)(?P=kind)\s*$")


def find(root: Path = Path("/"), search_path: str | None = None) -> Found:
    """The board's rails as one meter.

    Args:
        root: unless it is `/`, the command is looked for in its `usr/bin`.
        search_path: folders in which the command is looked for; the environment's PATH by default.
    """
    if search_path is None and root != Path("/"):
        search_path = str(root / "usr" / "bin")
    command = shutil.which(_COMMAND, path=search_path)
    if command is None:
        return absent(NAME, f"there is no command {_COMMAND}: this is no Raspberry Pi, or its tools are not installed")
    try:
        read_watts(command)
    except ToolchainError as error:
        return absent(NAME, error.got or error.what)
    watts = partial(read_watts, command)
    return Found((PowerMeter(NAME, "measured:raspberry-pi-pmic", _SCOPE, Covers.SYSTEM, _UPDATE_S, watts),), ())


def read_watts(command: str) -> float:
    """Power of all rails now, in watts.

    Args:
        command: path of `vcgencmd`.

    Raises:
        ToolchainError: the command failed, or its answer has no rails.
    """
    try:
        done = subprocess.run(
            [command, "pmic_read_adc"],
            capture_output=True,
            text=True,
            timeout=_TIME_LIMIT_S,
            check=False,
            env=os.environ | {"LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolchainError("The power management chip cannot be asked.", where=command, got=str(error)) from error
    answer = " ".join((done.stdout + done.stderr).split())
    watts = parse_watts(done.stdout)
    if done.returncode or watts is None:
        raise ToolchainError(
            "The power management chip does not tell its currents.",
            where=f"{command} pmic_read_adc",
            expected="a current and a voltage of every rail (Raspberry Pi 5)",
            got=f"exit status {done.returncode}: {answer[:200]}",
        )
    return watts


def parse_watts(answer: str) -> float | None:
    """Sum over the rails of current times voltage; None where no rail has both."""
    values: dict[str, dict[str, float]] = {"A": {}, "V": {}}
    for line in answer.splitlines():
        if found := _LINE.match(line):
            values[found["kind"]][found["rail"]] = float(found["value"])
    rails = values["A"].keys() & values["V"].keys()
    return sum(values["A"][rail] * values["V"][rail] for rail in rails) if rails else None
