"""Lineage is found in both directions, also through a step that passes its input on unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgemill.artifact import Artifact
from edgemill.errors import RecipeError
from edgemill.lineage import render, trace
from edgemill.store import StepRecord, Store


def record(store: Store, step: str, inputs: dict[str, Artifact], output: Artifact) -> None:
    store.commit(
        StepRecord(
            key=(step.encode().hex() * 64)[:64],
            step=step,
            version=1,
            settings={},
            inputs={name: artifact.digest for name, artifact in inputs.items()},
            outputs={"out": output},
            facts={},
            tools={},
            seed=0,
            extra={},
            wall_s=0.0,
            finished_at="2026-01-01T00:00:00+00:00",
        )
    )


@pytest.fixture
def chain(tmp_path: Path) -> tuple[Store, list[Artifact]]:
    store = Store(tmp_path / "state")
    artifacts = []
    for name in ("checkpoint", "model", "compiled", "scores"):
        path = tmp_path / name
        path.write_text(name)
        artifacts.append(store.put(path, kind=name, step=name))
    checkpoint, model, compiled, scores = artifacts
    record(store, "ingest", {"checkpoint": checkpoint}, model)
    record(store, "quantize", {"model": model}, compiled)
    record(store, "compile", {"model": compiled}, compiled)
    record(store, "gate", {"variant": compiled}, scores)
    return store, artifacts


def test_back_and_forward(chain):
    store, (checkpoint, model, compiled, scores) = chain
    found = trace(store, compiled.digest)
    assert [node.digest for node in found.ancestors] == [model.digest, checkpoint.digest]
    assert [node.digest for node in found.descendants] == [scores.digest]
    assert compiled.digest[:12] in render(found)


def test_a_file_and_the_first_digits_name_the_same_artifact(chain):
    store, (checkpoint, *_) = chain
    by_file = trace(store, str(store.path(checkpoint)))
    assert by_file == trace(store, checkpoint.digest[:10])
    assert len(by_file.descendants) == 3


@pytest.mark.parametrize("subject", ["00000000", ""])
def test_what_is_unknown_or_ambiguous_is_refused(chain, subject):
    with pytest.raises(RecipeError) as caught:
        trace(chain[0], subject)
    assert caught.value.exit_code == 2
