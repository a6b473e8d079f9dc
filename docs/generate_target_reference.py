"""Write the tables of docs/targets.md from the catalog: `python docs/generate_target_reference.py`."""

from __future__ import annotations

import re
from pathlib import Path

from edgemill.targets import load_target, target_names
from edgemill.targets.spec import By, Target
from edgemill.toolchains import load_toolchain, toolchain_names

PAGE = Path(__file__).with_name("targets.md")
_EXECUTED = {
    By.PROGRAM: "the program itself",
    By.REFERENCE: "reference implementation",
    By.SIMULATOR: "the vendor's simulator",
    By.NOTHING: "not at all: converted, never passes",
}


def target_table() -> str:
    """One row a target."""
    rows = ["| target | what | made by | answers come from | formats |", "| --- | --- | --- | --- | --- |"]
    for target in map(load_target, target_names()):
        made = (
            target.backend if target.toolchain in (None, target.backend) else f"{target.backend} ({target.toolchain})"
        )
        rows.append(
            f"| `{target.name}` | {target.title} | {made} | {_executed(target)} | {', '.join(target.formats)} |"
        )
    return "\n".join(rows)


def toolchain_table() -> str:
    """One row a toolchain."""
    rows = ["| toolchain | what | version | MB | licence |", "| --- | --- | --- | ---: | --- |"]
    for toolchain in map(load_toolchain, toolchain_names()):
        versions = ", ".join(toolchain.versions(toolchain.provides).values())
        rows.append(
            f"| `{toolchain.name}` | {toolchain.title} | {versions} | {toolchain.size_mb} | {toolchain.licence} |"
        )
    return "\n".join(rows)


def _executed(target: Target) -> str:
    emulator = "" if target.emulation is None else f"{target.emulation.emulator} -cpu {target.emulation.cpu}"
    by = target.execution.by
    if by is By.RUNTIME:
        return f"{target.runtime.name}, else in {emulator}" if emulator else target.runtime.name
    named = f" {target.execution.name}" if target.execution.name else ""
    return f"{_EXECUTED[by]}{named}" + (f", in {emulator}" if emulator else "")


def with_tables(text: str) -> str:
    """The page with the tables of today between its markers."""
    for name, table in (("targets", target_table()), ("toolchains", toolchain_table())):
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = pattern.sub(lambda found, table=table: f"{found.group(1)}{table}\n{found.group(2)}", text)
    return text


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
