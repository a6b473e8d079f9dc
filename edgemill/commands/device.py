"""`edgemill device`: boards, and measuring on them or on this machine as on one."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgemill.console import guarded, print_json, print_table

if TYPE_CHECKING:
    from edgemill.boards.inventory import Board
    from edgemill.recipe import Benchmark
    from edgemill.step import InputFile
    from edgemill.targets.spec import Target

_KINDS = {".onnx": "onnx", ".tflite": "tflite"}


@click.group()
def device() -> None:
    """Boards: which there are, their keys, and measurements on them."""


@device.command("list")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@guarded
def list_boards(as_json: bool) -> None:
    """List the boards of the inventory (EDGEMILL_BOARDS, else boards.yaml in the state folder)."""
    from edgemill.boards.inventory import inventory_path, load_inventory
    from edgemill.boards.ssh import title

    boards = load_inventory()
    if as_json:
        print_json({name: board.model_dump(mode="json") for name, board in boards.items()})
        return
    if not boards:
        click.echo(f"no boards in {inventory_path()}")
        return
    rows = [("board", "target", "address", "key")]
    for name, board in boards.items():
        enrolled = board.signer.fingerprint if board.signer else f"not enrolled: edgemill device enroll {name}"
        address = title(board).partition(" at ")[2]
        rows.append((name, board.target, address, "the line itself" if board.serial else enrolled))
    print_table(rows)


@device.command()
@click.argument("board")
@guarded
def check(board: str) -> None:
    """Look at BOARD: whether it can be reached, has its target's CPU, and what it lacks."""
    from edgemill.boards.contact import lacks, look, unlike
    from edgemill.boards.inventory import find_board
    from edgemill.boards.ssh import title
    from edgemill.errors import RecipeError, ToolchainError
    from edgemill.targets import load_target

    found = find_board(board)
    if found.ssh is None:
        raise RecipeError("A board at a serial line is looked at when it measures.", where=title(found))
    target = load_target(found.target)
    kinds = _kinds_of(target)
    told = look(found, kinds)
    why = unlike(told, target)
    click.echo(f"{title(found)}: {told.arch}, Python {'.'.join(map(str, told.python))}")
    missing = [f"another CPU than {target.name}'s: {why}"] if why else []
    missing += lacks(told, target, kinds)
    if missing:
        raise ToolchainError("The board lacks something.", where=title(found), got="; ".join(missing))
    click.echo("ready" if found.signer else f"ready; not enrolled yet: edgemill device enroll {board}")


@device.command()
@click.argument("board")
@guarded
def enroll(board: str) -> None:
    """Have BOARD make its key, once, and write the public part into the inventory."""
    from edgemill.boards.inventory import find_board
    from edgemill.boards.measure import enroll as make_key

    enrolled = make_key(find_board(board))
    assert enrolled.signer is not None
    click.echo(f"{board}: {enrolled.signer.fingerprint}")


@device.command()
@click.argument("variant", type=click.Path(path_type=Path))
@click.option("--baseline", type=click.Path(path_type=Path), required=True, help="the checkpoint as fp32 ONNX")
@click.option("--samples", type=click.Path(path_type=Path), required=True, help=".npy, (N, ...)")
@click.option("--target", "target_name", help="what the figures are for; with --board, that of the board")
@click.option("--board", "board_name", help="push it to this board and run it there; without it, on this machine")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True)
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=20.0, show_default=True, help="time budget")
@click.option("--out", type=click.Path(path_type=Path), help="write the result as JSON; a board's with its signature")
@guarded
def bench(
    variant: Path,
    baseline: Path,
    samples: Path,
    target_name: str | None,
    board_name: str | None,
    threads: int,
    batch: int,
    seconds: float,
    out: Path | None,
) -> None:
    """Measure VARIANT beside the baseline, interleaved, with governor, clocks and temperature. Prints JSON."""
    from edgemill.boards.inventory import find_board
    from edgemill.errors import RecipeError
    from edgemill.recipe import Benchmark
    from edgemill.store import storage_error, write_atomically
    from edgemill.targets import load_target

    board = None if board_name is None else find_board(board_name)
    name = target_name or (board.target if board else None)
    if name is None:
        raise RecipeError("It is not said what the figures are for.", where="--target or --board")
    rule = Benchmark(threads=threads, batch=batch, time_budget_s=seconds)
    with tempfile.TemporaryDirectory(prefix="edgemill-") as folder:
        inputs = {
            "variant": _model(variant),
            "baseline": _model(baseline),
            "data": _dataset(samples, Path(folder) / "data"),
        }
        target = load_target(name)
        result = (
            _here(target, rule, inputs, Path(folder)) if board is None else _there(board, target, rule, inputs, folder)
        )
    print_json(result)
    if out is not None:
        import json

        try:
            write_atomically(out, json.dumps(result, indent=1, sort_keys=True))
        except OSError as error:
            raise storage_error(error, out) from error


def _here(target: Target, rule: Benchmark, inputs: Mapping[str, InputFile], folder: Path) -> dict[str, Any]:
    from edgemill.device.bench import measure
    from edgemill.device.job import Job, Part, place

    job = Job(
        target=target,
        benchmark=rule,
        variant=Part(kind=inputs["variant"].artifact.kind, filename=inputs["variant"].path.name),
        baseline=Part(kind=inputs["baseline"].artifact.kind, filename=inputs["baseline"].path.name),
    )
    for name in ("variant", "baseline", "data"):
        link = place(folder / "job", name, inputs[name].path.name)
        link.parent.mkdir(parents=True)
        link.symlink_to(inputs[name].path.absolute())
    return measure(job, folder / "job", _tell)


def _there(
    board: Board, target: Target, rule: Benchmark, inputs: Mapping[str, InputFile], folder: str
) -> dict[str, Any]:
    from edgemill.boards import BoardSettings
    from edgemill.boards.measure import measure
    from edgemill.errors import RecipeError

    if board.ssh is None:
        raise RecipeError("A board at a serial line is measured in a run, with the file its firmware holds.")
    out = Path(folder) / "out"
    out.mkdir()
    answer = measure(board, BoardSettings(target=target, benchmark=rule), inputs, out, _tell)
    assert board.signer is not None
    proof = {"signed_text": answer.text, "signature": answer.signature, "signer": board.signer.model_dump()}
    return answer.signed.model_dump(mode="json") | {"source": board.source} | proof


def _model(path: Path) -> InputFile:
    from edgemill.artifact import Artifact, digest_path, size_of
    from edgemill.errors import RecipeError
    from edgemill.step import InputFile

    kind = _KINDS.get(path.suffix)
    if kind is None or not path.is_file():
        raise RecipeError("That is no model file.", got=str(path), expected=f"a file, {' or '.join(_KINDS)}")
    artifact = Artifact(
        digest=digest_path(path), filename=path.name, kind=kind, size_bytes=size_of(path), step="command line"
    )
    return InputFile(path, artifact)


def _dataset(samples: Path, folder: Path) -> InputFile:
    """The samples as the validation split of a dataset."""
    import numpy as np

    from edgemill.artifact import Artifact, digest_path, size_of
    from edgemill.data.dataset import SplitName, write_dataset
    from edgemill.errors import DataError
    from edgemill.recipe import Preprocess
    from edgemill.step import InputFile

    try:
        x = np.load(samples, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError("The samples cannot be read.", where=str(samples), got=str(error)) from error
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "fiub" or x.ndim == 0 or len(x) == 0:
        raise DataError("The file is no array of numbers.", where=str(samples), expected="a .npy file, (N, ...)")
    folder.mkdir()
    write_dataset(
        folder, {split: x[: len(x) * (split is SplitName.VALIDATION)] for split in SplitName}, None, Preprocess()
    )
    artifact = Artifact(
        digest=digest_path(folder), filename="data", kind="dataset", size_bytes=size_of(folder), step="command line"
    )
    return InputFile(folder, artifact)


def _kinds_of(target: Target) -> tuple[str, ...]:
    """Kinds of files that a board of a target must be able to run."""
    return ("onnx", "tflite") if target.runtime.name == "ai-edge-litert" else ("onnx",)


def _tell(fraction: float | None, message: str) -> None:
    click.echo(f"{'' if fraction is None else f'{fraction:4.0%} '}{message}", err=True)
