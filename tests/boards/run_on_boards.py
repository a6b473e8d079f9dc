"""A run that measures on boards, as its own program: `python run_on_boards.py INVENTORY FOLDER BUDGET_S BOARD...`.

Prints one JSON object: by number of the measurement its source or None, and what is missing by board.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tasks.environment import prepare

prepare()

from prefect import flow  # noqa: E402

from edgemill.boards.inventory import find_board  # noqa: E402
from edgemill.data.dataset import SplitName  # noqa: E402
from edgemill.recipe import Benchmark  # noqa: E402
from edgemill.targets import load_target  # noqa: E402
from tasks.boards import FromBoards, OnBoard, measure_on_boards  # noqa: E402
from tasks.run import open_store  # noqa: E402
from tests.runtimes import models  # noqa: E402


def main(inventory: str, place: str, budget_s: str, *boards: str) -> None:
    folder = Path(place)
    store = open_store()
    baseline = store.put(models.dense_onnx(folder / "b.onnx"), kind="onnx", step="test")
    data = store.put(models.dataset(folder / "data", models.inputs(20)), kind="dataset", step="test")
    wanted = []
    for index, name in enumerate(boards):
        board = find_board(name, Path(inventory))
        target = load_target(board.target)
        number = boards[:index].count(name)  # another file for every measurement of a board
        path = models.dense_tflite(folder / f"v{number}.tflite", ("int8", "int16")[number])
        variant = store.put(path, kind="tflite", step="test")
        wanted.append(OnBoard(board, target, variant, baseline, data, f"variant {number}", answer=SplitName.TEST))
    rule = Benchmark(rounds=8, runs_per_round=4, time_budget_s=float(budget_s), precision=1e-6)

    class Recipe:
        benchmark = rule

    @flow
    def on_boards() -> FromBoards:
        return measure_on_boards(wanted, Recipe())  # type: ignore[arg-type] - all that is taken of one

    found = on_boards()
    told = {
        "sources": [record and record.facts["source"] for record in found.records],
        "answered": [record and record.facts["answered"]["samples"] for record in found.records],
        "missing": {name: str(error) for name, error in found.missing.items()},
    }
    sys.stdout.write("RESULT " + json.dumps(told) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
