"""What a user sees who gives the wrong thing: one message, exit status 2, and nothing started."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from edgemill.cli import main
from tests.support.runs import optimize

DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "recipe.yaml"


@pytest.fixture
def recipe(tmp_path: Path) -> dict:
    document = yaml.safe_load(DIGITS.read_text())
    document["checkpoint"]["path"] = str(DIGITS.parent / "digits.keras")
    return document


def refused(tmp_path: Path, document: dict, *options: str) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(document))
    result = CliRunner().invoke(main, ["optimize", str(path), *options])
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit), "a traceback reached the user"
    return result.stderr


def test_unknown_key(tmp_path, state, recipe):
    recipe["stages"]["quantize"]["shemes"] = ["int8_static"]
    text = refused(tmp_path, recipe)
    assert "stages.quantize.shemes" in text
    assert "schemes" in text


def test_wrong_type(tmp_path, state, recipe):
    recipe["stages"]["distill"]["epochs"] = "many"
    text = refused(tmp_path, recipe)
    assert "stages.distill.epochs" in text
    assert "'many'" in text


def test_impossible_combination(tmp_path, state, recipe):
    recipe["task"] = "unlabelled"
    assert "soft_weight" in refused(tmp_path, recipe)


def test_unknown_target_names_the_nearest(tmp_path, state, recipe):
    recipe["targets"] = ["rasberry-pi5"]
    assert "did you mean raspberry-pi-5" in refused(tmp_path, recipe)


def test_an_override_reaches_the_recipe(tmp_path, state, recipe):
    assert "targets" in refused(tmp_path, recipe, "--set", "targets=[toaster]")
    assert "key.path=value" in refused(tmp_path, recipe, "--set", "targets")


def test_missing_recipe(state):
    result = CliRunner().invoke(main, ["optimize", "nowhere.yaml"])
    assert result.exit_code == 2
    assert "nowhere.yaml" in result.stderr


def write_truncated(path: Path) -> None:
    path.write_bytes((DIGITS.parent / "digits.keras").read_bytes()[:20_000])


def write_torch(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"weight": 1}))


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("missing.keras", lambda path: None, "no such checkpoint"),
        ("empty.keras", lambda path: path.write_bytes(b""), "empty"),
        ("text.onnx", lambda path: path.write_text("this is not a model\n" * 10), "text"),
        ("cut.keras", write_truncated, "keras"),
        ("model.pkl", lambda path: path.write_bytes(pickle.dumps([1, 2])), "pickle"),
        ("model.pt", write_torch, "pickle"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path, state, recipe, name, write, words):
    path = tmp_path / name
    write(path)
    recipe["checkpoint"]["path"] = str(path)
    text = refused(tmp_path, recipe)
    assert words in text.lower()
    assert name in text
    assert "remedy" in text


def test_missing_data(tmp_path, state, recipe):
    recipe["data"] = {"source": "npz", "path": "nowhere.npz", "split": {"validation": 10}}
    assert "nowhere.npz" in refused(tmp_path, recipe)


@pytest.mark.parametrize(
    ("name", "variable", "address"),
    [
        ("MLflow", "MLFLOW_TRACKING_URI", "http://127.0.0.1:9"),
        ("Prefect", "PREFECT_API_URL", "http://127.0.0.1:9/api"),
    ],
)
def test_a_server_that_does_not_answer(state, name, variable, address):
    finished = optimize(state, **{variable: address})
    assert finished.code == 2, finished.log
    assert f"{name}" in finished.log
    assert address in finished.log
    assert "finished steps stay in the store" in finished.log
    assert "Traceback" not in finished.log


def test_a_state_folder_that_cannot_be_written(tmp_path, recipe, monkeypatch):
    blocker = tmp_path / "file"
    blocker.write_text("")
    monkeypatch.setenv("EDGEMILL_HOME", str(blocker / "state"))
    assert "state folder cannot be written" in refused(tmp_path, recipe)
