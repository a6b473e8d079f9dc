"""`edgemill doctor`: what is here, what is missing, and the command that gets it."""

from __future__ import annotations

from collections.abc import Sequence

import click

from edgemill.console import guarded, print_json, print_table


@click.command()
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@guarded
def doctor(as_json: bool) -> None:
    """Say what is installed here, what each target lacks, and which command gets it."""
    from edgemill.doctor import examine

    report = examine()
    if as_json:
        print_json(report)
        return
    _section("packages", [(name, version) for name, version in report["packages"].items()])
    _section(
        "emulators and compilers",
        [
            *report["emulators"].items(),
            *((f"sysroot {name}", text) for name, text in report["sysroots"].items()),
            *report["compilers"].items(),
        ],
    )
    chains = report["toolchains"].items()
    _section("toolchains", [(name, facts["state"], facts["title"]) for name, facts in chains])
    meters = report["energy_meters"] | {
        name: f"not usable: {why}" for name, why in report["energy_meters_unusable"].items()
    }
    _section("energy meters", list(meters.items()))
    _section("targets", [(name, facts["answers"], facts["state"]) for name, facts in report["targets"].items()])
    title = f"what gets everything that targets lack, about {report['missing_mb']:,} MB of toolchains"
    _section(title, [(command,) for command in report["missing"]])


def _section(title: str, rows: Sequence[tuple[str, ...]]) -> None:
    if not rows:
        return
    click.secho(title, bold=True)
    print_table([("", *row) for row in rows])
    click.echo()
