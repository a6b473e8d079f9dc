"""All repairs in the step `quantize.static`: order, records, determinism, and that nothing gets worse."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgemill.quantize import StaticSettings, static
from edgemill.quantize.repair.probe import Samples, sqnr_db
from edgemill.recipe import Granularity, Repair
from edgemill.targets.spec import ActivationType, WeightType
from tests.quantize.models import as_input, context
from tests.repair.graphs import Maker, dataset, separable, unbalanced
from tests.repair.graphs import settings as rule


def run(folder: Path, model: onnx.ModelProto, settings: StaticSettings) -> Any:
    shape = tuple(size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim[1:])
    folder.mkdir()
    onnx.save(model, str(folder / "source.onnx"))
    dataset(folder / "data", shape)
    inputs = {"onnx": as_input(folder / "source.onnx", "onnx"), "data": as_input(folder / "data", "dataset")}
    return static.run(settings, inputs, context(folder / "step", seed=3))


def sqnr(folder: Path, made: Any) -> float:
    from edgemill.data.dataset import Dataset

    samples = Samples(Dataset(folder / "data"), 16)
    found = sqnr_db(onnx.load(str(folder / "source.onnx")), onnx.load(str(made.files["onnx"].path)), samples)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"granularity": Granularity.PER_TENSOR},
        {"reduce_range": True, "weights": WeightType.UINT8},
        {"activations": ActivationType.INT8},
    ],
    ids=["per_channel", "per_tensor", "reduced_uint8", "int8"],
)
def test_a_badly_scaled_network_is_repaired(tmp_path: Path, form: dict[str, Any]) -> None:
    model = unbalanced(30, seed=4)
    plain = run(tmp_path / "plain", model, rule(**form))
    whole = run(tmp_path / "whole", model, rule(**form, repair=tuple(reversed(Repair))))
    assert "repairs" not in plain.facts
    records = whole.facts["repairs"]
    assert [record["repair"] for record in records] == [str(repair) for repair in Repair]
    assert records[0]["kept"]
    assert records[0]["sqnr_before_db"] == pytest.approx(sqnr(tmp_path / "plain", plain), abs=0.01)
    assert sqnr(tmp_path / "whole", whole) > sqnr(tmp_path / "plain", plain) + 10
    kept = [record for record in records if record["kept"]]
    for earlier, later in itertools.pairwise(kept):
        assert later["sqnr_before_db"] == pytest.approx(earlier["sqnr_after_db"], abs=0.01)
    assert sqnr(tmp_path / "whole", whole) == pytest.approx(kept[-1]["sqnr_after_db"], abs=0.01)
    assert whole.facts["kernels"]["unfused"] == []
    assert [path.name for path in (tmp_path / "whole" / "step" / "out").iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("repair", list(Repair))
def test_no_repair_makes_the_answers_worse(tmp_path: Path, repair: Repair) -> None:
    model = separable(spread=2, seed=8)
    plain = run(tmp_path / "plain", model, rule())
    made = run(tmp_path / "made", model, rule(repair=(repair,)))
    (record,) = made.facts["repairs"]
    assert sqnr(tmp_path / "made", made) >= sqnr(tmp_path / "plain", plain) - 1e-6
    if not record["kept"]:
        assert made.files["onnx"].path.read_bytes() == plain.files["onnx"].path.read_bytes()
        assert any(str(repair) in text for text in made.facts["warnings"])
    else:
        assert record["changed"] == len(record["layers"]) > 0
        assert record["sqnr_after_db"] >= record["sqnr_before_db"]


def test_what_finds_nothing_to_do_says_so_and_changes_nothing(tmp_path: Path) -> None:
    maker = Maker(("n", 3, 8, 8))
    maker.node("GlobalAveragePool")
    model = maker.model()
    plain = run(tmp_path / "plain", model, rule())
    made = run(tmp_path / "made", model, rule(repair=tuple(Repair)))
    assert made.files["onnx"].path.read_bytes() == plain.files["onnx"].path.read_bytes()
    assert [record["changed"] for record in made.facts["repairs"]] == [0] * len(Repair)
    assert len([text for text in made.facts["warnings"] if "found nothing to do" in text]) == len(Repair)


def test_the_same_inputs_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (run(tmp_path / name, unbalanced(10, seed=2), rule(repair=tuple(Repair))) for name in ("a", "b"))
    assert first.files["onnx"].path.read_bytes() == second.files["onnx"].path.read_bytes()
    assert first.facts["repairs"] == second.facts["repairs"]


def test_records_are_plain_json(tmp_path: Path) -> None:
    import json

    made = run(tmp_path / "made", unbalanced(10), rule(repair=tuple(Repair)))
    text = json.dumps(made.facts["repairs"], allow_nan=False)
    assert np.isfinite(json.loads(text)[0]["sqnr_after_db"])
