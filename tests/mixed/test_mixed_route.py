"""How the scheme reaches targets, and that the step runs as a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgemill.compile.backend import Refusal, Route, backend_of
from edgemill.execute import Call, execute, release_workers
from edgemill.quantize import MIXED, MixedSettings
from edgemill.recipe import Budget, Scheme, Wider, parse_recipe
from edgemill.store import Store
from edgemill.targets import load_target
from tests.mixed.graphs import classifier
from tests.quantize.models import digits

FORMS = frozenset({"onnx", "keras", "saved_model"})


def route(target: str, **mixed: Any) -> Route | Refusal:
    recipe = parse_recipe(
        {
            "name": "test",
            "checkpoint": {"path": "model.keras"},
            "data": {"source": "npz", "path": "data.npz", "split": {"validation": 10}},
            "budget": {"max_accuracy_drop": 0.02, "confidence": 0.9},
            "gates": {"flips": {"max_rate": 0.1}},
            "stages": {"quantize": {"schemes": ["int8_mixed"], "mixed": mixed, "calibration": "mse"}},
        }
    )
    found = load_target(target)
    return backend_of(found).route(Scheme.INT8_MIXED, FORMS, found, recipe)


@pytest.mark.parametrize("name", ["x86-64-vnni", "x86-64-avx2", "raspberry-pi-5"])
def test_the_recipe_reaches_the_step(name: str) -> None:
    found = route(name, evaluations=5, wider=["fp16"])
    assert isinstance(found, Route)
    assert found.step is MIXED
    assert isinstance(found.settings, MixedSettings)
    assert found.settings.int8 == load_target(name).int8
    assert found.settings.calibration == "mse"
    assert found.settings.budget.max_accuracy_drop == 0.02
    assert found.settings.gates.flips is not None
    assert found.settings.evaluations == 5
    assert found.settings.wider == (Wider.FP16, Wider.FP32)
    assert found.inputs == {"onnx": "onnx", "data": "data", "checkpoint": "teacher"}


@pytest.mark.parametrize(("name", "mixed"), [("android-arm64", {}), ("raspberry-pi-5", {"wider": ["int16"]})])
def test_what_a_target_lacks_is_refused_with_a_way_out(name: str, mixed: dict[str, Any]) -> None:
    found = route(name, **mixed)
    assert isinstance(found, Refusal)
    assert found.reason
    assert found.remedy


def test_the_step_runs_in_its_child_process(tmp_path: Path) -> None:
    data = digits(tmp_path / "data")
    classifier(tmp_path / "model.onnx", data, (1,))
    store = Store(tmp_path / "store")
    inputs = {
        "onnx": store.put(tmp_path / "model.onnx", kind="onnx", step="test"),
        "data": store.put(tmp_path / "data", kind="dataset", step="test"),
    }
    rules = MixedSettings(
        int8=load_target("x86-64-vnni").int8, budget=Budget(max_accuracy_drop=0.03), wider=(Wider.FP32,)
    )
    told: list[float] = []
    try:
        record = execute(
            store, Call(MIXED, rules, inputs), lambda fraction, message: told.append(fraction or 0.0)
        ).record
    finally:
        release_workers()
    assert record.facts["outcome"] == "mixed"
    assert record.outputs["onnx"].signature is not None
    assert told == sorted(told)
    assert max(told) <= 1
