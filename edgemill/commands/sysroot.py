"""`edgemill sysroot`: build what the emulator needs to run another architecture's programs."""

from __future__ import annotations

import click

from edgemill.console import guarded, print_json
from edgemill.emulate.places import ARCHITECTURES


@click.command()
@click.argument("arch", default="aarch64", type=click.Choice(sorted(ARCHITECTURES)))
@click.option("--mirror", help="of the Debian archive  [default: the one that this machine uses]")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@guarded
def sysroot(arch: str, mirror: str | None, as_json: bool) -> None:
    """Build the sysroot of ARCH, in which models are validated in its arithmetic. Needs qemu-user and apt-get, no root.

    It goes below the state folder, or into the folder EDGEMILL_SYSROOTS. One that is there and fits is kept.
    """
    from edgemill.emulate.sysroot import build_sysroot

    def report(fraction: float, message: str) -> None:
        click.echo(f"{fraction:4.0%} {message}", err=True)

    made = build_sysroot(arch, report, mirror)
    assert made.manifest is not None
    if as_json:
        print_json({"path": str(made.folder), "digest": made.digest} | made.manifest.model_dump(mode="json"))
        return
    versions = ", ".join(f"{name} {made.manifest.wheels[name]}" for name in ("onnxruntime", "ai-edge-litert", "numpy"))
    click.echo(f"{made.folder}: Debian {made.manifest.release}, Python {made.manifest.python}, {versions}")
