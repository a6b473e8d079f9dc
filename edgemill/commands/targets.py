"""`edgemill targets`: the catalog, one target of it, and installing what a target needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgemill.console import brief, guarded, print_json, print_table

if TYPE_CHECKING:
    from edgemill.targets import Target


@click.command()
@click.argument("words", nargs=-1, metavar="[NAME | install NAME...]")
@click.option("--all", "everything", is_flag=True, help="with install: every toolchain")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@guarded
def targets(words: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """List the targets, show everything about one, or install the toolchains that targets need.

    \b
    edgemill targets                      the catalog, and what each target lacks here
    edgemill targets ethos-u55-128        every field of one; a YAML file of your own likewise
    edgemill targets install NAME...      of targets or toolchains; --all for every one

    Own targets: YAML files in the folders named by EDGEMILL_TARGETS, see docs/targets.md.
    """
    if words[:1] == ("install",):
        _install(words[1:], everything, as_json)
    elif words:
        _show(words, as_json)
    else:
        _list(as_json)


def _list(as_json: bool) -> None:
    from edgemill.emulate.machine import how_executed
    from edgemill.lack import commands, state, total_mb
    from edgemill.targets import load_target, target_names
    from edgemill.targets.capability import blockers, capability, describe_targets

    if as_json:
        print_json(describe_targets())
        return
    rows = [("TARGET", "WHAT", "BACKEND", "ANSWERS HERE BY", "STATE")]
    missing = []
    for target in map(load_target, target_names()):
        lacks = capability(target)
        source = "-" if blockers(target) else how_executed(target).source
        rows.append((target.name, target.title, target.backend, source, state(lacks)))
        missing += lacks
    print_table(rows)
    if missing:
        click.echo(f"\nwhat gets everything that is missing, about {total_mb(missing):,} MB of toolchains")
    for command in commands(missing):
        click.echo(f"  {command}")


def _show(names: tuple[str, ...], as_json: bool) -> None:
    from edgemill.targets import load_target

    found = [load_target(name) for name in names]
    if as_json:
        values = [target.model_dump(mode="json") for target in found]
        print_json(values[0] if len(values) == 1 else values)
        return
    for target in found:
        print_table([(key, brief(value)) for key, value in _fields(target)])


def _fields(target: Target) -> list[tuple[str, object]]:
    from edgemill.targets.capability import capability

    fields: list[tuple[str, object]] = [(k, v) for k, v in target.model_dump(mode="json").items() if v is not None]
    return [*fields, *(("lacks here", str(lack)) for lack in capability(target))]


def _install(names: tuple[str, ...], everything: bool, as_json: bool) -> None:
    from edgemill.errors import RecipeError
    from edgemill.lack import told
    from edgemill.targets import load_target, target_names
    from edgemill.targets.capability import blockers
    from edgemill.toolchains import toolchain_names
    from edgemill.toolchains.install import install

    if not names and not everything:
        raise RecipeError("Nothing to install was named.", expected="targets, toolchains, or --all")
    wanted = [load_target(name) for name in (target_names() if everything else names) if name not in toolchain_names()]
    toolchains = [name for name in names if name in toolchain_names()]
    toolchains += [name for target in wanted for name in target.toolchains]
    done = []
    for name in dict.fromkeys([*toolchains, *(toolchain_names() if everything else ())]):
        click.echo(f"{name} ...", err=True)
        done.append(install(name))
    further = {target.name: lacks for target in wanted if (lacks := blockers(target))}
    if as_json:
        chains = {
            found.toolchain.name: {"folder": str(found.folder), "lacks": [lack.as_json() for lack in found.lacks]}
            for found in done
        }
        still = {name: [lack.as_json() for lack in missing] for name, missing in further.items()}
        print_json({"toolchains": chains, "targets_lack": still})
        return
    for found in done:
        click.echo(f"{found.toolchain.name}: {told(found.lacks) or f'ready, {found.folder}'}")
    for name, missing in further.items():
        click.echo(f"{name} still lacks: {told(missing)}")
