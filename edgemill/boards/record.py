"""A measurement on a board as a record in the store, like that of any step: done once, found again."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from edgemill.artifact import Artifact
from edgemill.benchmark.sizes import COMPRESSION, TRANSFER_COMPRESSION, sizes
from edgemill.boards import BOARD, BoardSettings
from edgemill.boards.inventory import Board
from edgemill.boards.mcu import measure_serial
from edgemill.boards.measure import measure
from edgemill.boards.session import Report
from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import RecipeError
from edgemill.execute import Call
from edgemill.step import InputFile, OutputFile, Outputs
from edgemill.store import StepRecord, Store

SIGNED = "signed.json"
_SERIAL_SAMPLES = 100  # whose cycles are counted where no split is to be answered


def board_call(board: Board, settings: BoardSettings, inputs: Mapping[str, Artifact]) -> Call:
    """A measurement with everything that decides its result.

    Args:
        board: which board; its key is part of the identity.
        settings: what is measured how.
        inputs: `variant`, `baseline` (fp32 onnx), `data`.

    Raises:
        RecipeError: the board is of another target.
    """
    if settings.target.name != board.target and not board.target.endswith(f"{settings.target.name}.yaml"):
        raise RecipeError(
            "The board is of another target.",
            where=f"board {board.name}",
            expected=board.target,
            got=settings.target.name,
        )
    return Call(BOARD, settings, inputs, extra={"board": board.name, "identity": board.identity})


def measure_and_keep(store: Store, board: Board, call: Call, report: Report) -> StepRecord:
    """The record of a measurement: from the store, or from the board.

    Args:
        store: where it is kept.
        board: is asked where the store does not know.
        call: from `board_call`.
        report: told of progress.

    Facts: of a board over SSH those of `benchmark.latency` (none of them where the models are not timed), `source`
    and `energy_source` naming the board;
    `board` with `name`, `signer`, `before` and `after` (`edgemill.device.conditions.Conditions`), `lease`, `package`,
    `started_at`, `finished_at`; `answered` where a split was. Of a microcontroller those of `benchmark.figures`.

    Outputs:
        samples: .npz with everything that was timed; absent where nothing was.
        signed: JSON {result, signature, signer}, from which anybody can verify the facts again.
        predictions: float32 (N, *output_shape) where a split was answered.

    Raises:
        EdgemillError: whatever kept the board from answering.
    """
    with store.lock(call.key):
        if (record := store.record(call.key)) is not None:
            return record
        began = time.monotonic()
        work = store.workspace(call.key)
        inputs = {name: InputFile(store.path(artifact), artifact) for name, artifact in call.inputs.items()}
        settings = call.settings
        assert isinstance(settings, BoardSettings)
        ask = _over_serial if board.serial is not None else _over_ssh
        outputs = ask(board, settings, inputs, work / "out", report)
        parents = tuple(sorted({artifact.digest for artifact in call.inputs.values()}))
        record = StepRecord(
            key=call.key,
            step=call.step.name,
            version=call.step.version,
            settings=settings.model_dump(mode="json"),
            inputs={name: artifact.digest for name, artifact in call.inputs.items()},
            outputs={
                name: store.put(file.path, kind=file.kind, step=call.step.name, parents=parents)
                for name, file in outputs.files.items()
            },
            facts=dict(outputs.facts),
            tools=call.tools,
            seed=call.seed,
            extra=call.identities,
            varies=call.step.varies,
            wall_s=round(time.monotonic() - began, 3),
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        store.commit(record)
        store.discard_workspace(call.key)
        return record


def _over_ssh(
    board: Board, settings: BoardSettings, inputs: Mapping[str, InputFile], out: Path, report: Report
) -> Outputs:
    answer = measure(board, settings, inputs, out, report)
    signed = answer.signed
    assert board.signer is not None
    proof = {"result": answer.text, "signature": answer.signature, "signer": board.signer.model_dump()}
    (out / SIGNED).write_text(json.dumps(proof, indent=1), encoding="utf-8")
    kinds = {"samples.npz": "samples", "predictions.npy": "predictions"}
    files = {kinds[name]: OutputFile(path, kinds[name]) for name, path in answer.files.items() if name in kinds}
    facts = signed.facts | _sizes(inputs) | {"source": board.source, "host": signed.host}
    if "energy_source" in facts:
        facts["energy_source"] = f"{board.source}/{facts['energy_source'].partition(':')[2]}"
    about = {"name": board.name, "signer": board.signer.fingerprint}
    told = ("before", "after", "lease", "package", "started_at", "finished_at")
    facts["board"] = about | {name: getattr(signed, name) for name in told}
    return Outputs(files=files | {"signed": OutputFile(out / SIGNED, "signed_result")}, facts=facts)


def _over_serial(
    board: Board, settings: BoardSettings, inputs: Mapping[str, InputFile], out: Path, report: Report
) -> Outputs:
    data = Dataset(inputs["data"].path)
    split = settings.answer or SplitName.VALIDATION
    x = data.features(split, 0, None if settings.answer else _SERIAL_SAMPLES)
    device, cycles = measure_serial(board, inputs["variant"].artifact, x, out, report)
    np.savez_compressed(out / "samples.npz", variant_cycles=cycles)
    files = {"samples": OutputFile(out / "samples.npz", "samples")}
    facts = _sizes(inputs) | {
        "device": device.model_dump(mode="json"),
        "source": board.source,
        "latency_p50_ms": device.latency_ms,
        "board": {"name": board.name},
    }
    if settings.answer is not None:
        files["predictions"] = OutputFile(out / "predictions.npy", "predictions")
        facts["answered"] = {"split": str(split), "samples": len(x)}
    return Outputs(files=files, facts=facts)


def _sizes(inputs: Mapping[str, InputFile]) -> dict[str, Any]:
    baseline = {f"baseline_{name}": value for name, value in sizes(inputs["baseline"].path).items()}
    own = sizes(inputs["variant"].path)
    return own | baseline | {"compression": COMPRESSION, "transfer_compression": TRANSFER_COMPRESSION}
