"""The recipe: what is refused, with which words, and what becomes of variables, overrides and paths."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgemill.errors import RecipeError
from edgemill.recipe import Optimizer, PruneMethod, Recipe, Scheme, Task, load_recipe, parse_recipe

MINIMAL: dict[str, Any] = {
    "name": "m",
    "checkpoint": {"path": "m.keras"},
    "data": {"source": "npz", "path": "d.npz", "split": {"validation": 10, "test": 10}},
}

FULL: dict[str, Any] = MINIMAL | {
    "stages": {
        "distill": {"student": {"width": 0.5}},
        "prune": {"sparsity": 0.5},
        "quantize": {"schemes": ["int8_static", "int8_qat"], "qat": {"epochs": 2}},
    },
    "targets": ["android-arm64"],
}


def changed(path: str, value: Any, base: dict[str, Any] = FULL) -> dict[str, Any]:
    document = copy.deepcopy(base)
    *parents, last = path.split(".")
    node = document
    for key in parents:
        node = node.setdefault(key, {})
    node[last] = value
    return document


def refused(document: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(document, "my.yaml")
    assert caught.value.exit_code == 2
    text = str(caught.value)
    assert "my.yaml" in text or caught.value.where
    return text


def write(folder: Path, document: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return path


def test_defaults_of_a_minimal_recipe() -> None:
    recipe = parse_recipe(MINIMAL)
    assert recipe.task is Task.CLASSIFICATION
    assert recipe.stages.distill is None
    assert recipe.stages.prune is None
    assert recipe.stages.quantize.schemes == (Scheme.INT8_STATIC,)
    assert len(recipe.targets) == 3
    assert recipe.budget.max_accuracy_drop == 0.005


def test_full_recipe_and_its_json_round_trip() -> None:
    recipe = parse_recipe(FULL)
    assert recipe.stages.distill is not None
    assert recipe.stages.distill.optimizer is Optimizer.SGD
    assert recipe.stages.quantize.qat.optimizer is Optimizer.ADAM
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("stages.prune.sparcity", 0.4, ["stages.prune.sparcity: unknown key", "did you mean sparsity?", "found 0.4"]),
        ("data.split.folds", 3, ["data.split.folds: unknown key", "known here: calibration, "]),
        ("stages.distill.student.depth", 3, ["stages.distill.student.depth: unknown key", "family, function, width"]),
        ("colour", "red", ["colour: unknown key", "checkpoint, data, "]),
        ("stages.prune.epochs", "many", ["stages.prune.epochs:", "valid integer", "found 'many'"]),
        ("stages.prune.epochs", 2.5, ["stages.prune.epochs:", "integer", "found 2.5"]),
        ("stages.prune.epochs", True, ["stages.prune.epochs: must be a number", "found True"]),
        ("stages.prune.patience", False, ["stages.prune.patience: must be a number", "found False"]),
        ("budget.max_accuracy_drop", float("nan"), ["budget.max_accuracy_drop:", "finite", "found nan"]),
        ("stages.prune.learning_rate", float("inf"), ["stages.prune.learning_rate:", "finite", "found inf"]),
        ("budget.confidence", 95, ["budget.confidence:", "less than 1", "found 95"]),
        ("budget.max_accuracy_drop", 0, ["budget.max_accuracy_drop:", "greater than 0", "found 0"]),
        ("targets", "raspberry-pi-5", ["targets: must be a list, e.g. [raspberry-pi-5]", "found 'raspberry-pi-5'"]),
        ("stages.prune", 0.5, ["stages.prune: must be a mapping of keys", "sparsity", "found 0.5"]),
        ("data.split", [5000], ["data.split: must be a mapping of keys; known here: calibration", "found [5000]"]),
        ("seed", {"a": 1}, ["seed:", "valid integer", "found {'a': 1}"]),
        ("task", "segmentation", ["task:", "'regression', 'anomaly' or 'unlabelled'", "found 'segmentation'"]),
        ("stages.quantize.schemes", ["int4"], ["stages.quantize.schemes.0:", "'int8_static'", "found 'int4'"]),
        ("stages.quantize.schemes", [], ["stages.quantize.schemes:", "at least 1"]),
        ("stages.quantize.schemes", ["fp16", "fp16"], ["stages.quantize: a scheme is listed twice"]),
        ("targets", ["a", "a"], ["targets: a target is listed twice"]),
        ("name", "My Model", ["name:", "pattern", "found 'My Model'"]),
        ("seed", -1, ["seed:", "greater than or equal to 0", "found -1"]),
        ("checkpoint.sha256", "abc", ["checkpoint.sha256:", "found 'abc'"]),
        ("checkpoint.model_function", "os.system", ["checkpoint.model_function:", "python:"]),
        ("data.source", "csv", ["data.source: must be idx, npz", "found 'csv'"]),
        ("data.source", "sklearn:mnist", ["data.source: must be", "sklearn:digits", "found 'sklearn:mnist'"]),
        ("data.source", "python:a.:f", ["data.source: must be", "python:module:function"]),
        ("data.source", "idx\n", ["data.source: must be"]),
        ("data.options", {"when": object}, ["data.options: must hold only text"]),
        ("data.options", {"rate": float("nan")}, ["data.options: must hold only text, finite numbers"]),
        ("data.preprocess.scale", 0, ["data.preprocess.scale:", "greater than 0", "found 0"]),
    ],
)
def test_wrong_key_or_value(path: str, value: Any, words: list[str]) -> None:
    text = refused(changed(path, value))
    for word in words:
        assert word in text
    assert "docs/recipe.md" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data.path": None}, ["data: path is required for source npz"]),
        ({"stages.distill.student": {}}, ["stages.distill.student: one of width, family, function is needed"]),
        (
            {"stages.distill.student": {"function": "python:a:b", "width": 0.5}},
            ["stages.distill.student: function excludes width and family"],
        ),
        ({"stages.prune": {"method": "n_m", "sparsity": 0.8}}, ["stages.prune: sparsity must be 0.5", "found 0.8"]),
        (
            {"data.split": {"validation": 10, "calibration": 11, "test": 5, "calibration_within_validation": True}},
            ["data.split: calibration (11) must not exceed validation (10)"],
        ),
        ({"budget.max_accuracy_drop": 2}, ["budget.max_accuracy_drop: must be below 1", "found 2.0"]),
        ({"task": "unlabelled"}, ["stages.distill.soft_weight: must be 1 for task unlabelled", "found 0.7"]),
        (
            {"task": "unlabelled", "stages.distill": None, "stages.prune": {"distill": False}},
            ["stages.prune.distill: must be true for task unlabelled"],
        ),
        (
            {"task": "unlabelled", "stages.distill": None, "stages.prune": None},
            ["stages.quantize.qat.soft_weight: must be 1 for task unlabelled"],
        ),
    ],
)
def test_impossible_combination(changes: dict[str, Any], words: list[str]) -> None:
    document = FULL
    for path, value in changes.items():
        document = changed(path, value, document)
    text = refused(document)
    for word in words:
        assert word in text


def test_possible_neighbours_of_the_impossible() -> None:
    coarse = changed("budget.max_accuracy_drop", 2, changed("task", "regression"))
    assert parse_recipe(coarse).budget.max_accuracy_drop == 2
    alone = changed("task", "unlabelled", MINIMAL)
    assert parse_recipe(alone).task is Task.UNLABELLED
    taught = changed("stages.prune", {"soft_weight": 1}, alone)
    assert parse_recipe(taught).stages.prune is not None
    two_four = parse_recipe(changed("stages.prune", {"method": "n_m"}))
    assert two_four.stages.prune is not None
    assert two_four.stages.prune.method is PruneMethod.N_M
    assert (
        parse_recipe(changed("data", {"source": "sklearn:iris", "split": {"validation": 5, "test": 5}})).data.path
        is None
    )


def test_every_mistake_is_named_at_once() -> None:
    document = changed("stages.prune.epochs", "x", changed("seed", -1, changed("colour", 1)))
    del document["checkpoint"]
    text = refused(document)
    assert "4 mistakes" in text
    for key in ("stages.prune.epochs:", "seed:", "colour:", "checkpoint: this key is required"):
        assert key in text


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_document_that_is_no_mapping(document: Any) -> None:
    assert "A recipe is a mapping of keys" in refused(document)


def test_variables_are_expanded_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEMILL_TEST_ROOT", "/somewhere")
    monkeypatch.setenv("EDGEMILL_TEST_SEED", "12")
    document = changed("data.path", "${EDGEMILL_TEST_ROOT}/a/${EDGEMILL_TEST_SEED}.npz")
    document = changed("seed", "${EDGEMILL_TEST_SEED}", document)
    document = changed("data.options", {"list": [{"x": "${EDGEMILL_TEST_ROOT}"}]}, document)
    recipe = parse_recipe(document)
    assert recipe.data.path == "/somewhere/a/12.npz"
    assert recipe.seed == 12
    assert recipe.data.options == {"list": [{"x": "/somewhere"}]}


@pytest.mark.parametrize("value", [None, ""])
def test_variable_not_set_or_empty(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("EDGEMILL_TEST_ROOT", raising=False)
    if value is not None:
        monkeypatch.setenv("EDGEMILL_TEST_ROOT", value)
    text = refused(changed("data.options", {"list": ["${EDGEMILL_TEST_ROOT}"]}))
    assert "EDGEMILL_TEST_ROOT" in text
    assert "where: data.options.list.0" in text
    assert "export EDGEMILL_TEST_ROOT=" in text


def test_relative_paths_start_at_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    path = write(tmp_path, changed("data.path", "~/d.npz"))
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(Path("recipe.yaml"))
    assert recipe.checkpoint.path == str(tmp_path.resolve() / "m.keras")
    assert recipe.data.path == "/somewhere/d.npz"
    absolute = load_recipe(path, ("checkpoint.path=/models/m.keras",))
    assert absolute.checkpoint.path == "/models/m.keras"
    for key in ("checkpoint.path", "data.path"):
        with pytest.raises(RecipeError, match="path is empty") as caught:
            load_recipe(path, (f"{key}=''",))
        assert key in str(caught.value)
    with pytest.raises(RecipeError, match="home folder") as caught:
        load_recipe(path, ("data.path=~no-such-user-here/d.npz",))
    assert "data.path" in str(caught.value)


def test_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEMILL_TEST_ROOT", raising=False)
    path = write(tmp_path, changed("data.path", "${EDGEMILL_TEST_ROOT}/d.npz"))
    recipe = load_recipe(
        path,
        (
            "data.path=/x=y/d.npz",
            "stages.quantize.qat.learning_rate=2e-4",
            "targets=[x86-64-vnni]",
            "benchmark.rounds=7",
            "stages.distill=null",
            "name=other",
        ),
    )
    assert recipe.data.path == "/x=y/d.npz"
    assert recipe.stages.quantize.qat.learning_rate == 2e-4
    assert recipe.targets == ("x86-64-vnni",)
    assert recipe.benchmark.rounds == 7
    assert recipe.stages.distill is None
    assert recipe.name == "other"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed", ["key.path=value", "got: seed"]),
        ("=3", ["key.path=value"]),
        ("targets.0=a", ["--set targets.0=a", "targets is ['android-arm64']"]),
        ("name.deep.er=1", ["not a mapping of keys", "name is 'm'"]),
        ("seed=[1", ["cannot be read as YAML", "--set seed=[1"]),
        ("stages.prune.epoch=1", ["stages.prune.epoch: unknown key", "did you mean epochs?"]),
        ("seed=yes", ["seed: must be a number", "found True"]),
    ],
)
def test_wrong_override(tmp_path: Path, override: str, words: list[str]) -> None:
    path = write(tmp_path, FULL)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, (override,))
    for word in words:
        assert word in str(caught.value)


def test_override_changes_one_place_of_a_shared_node(tmp_path: Path) -> None:
    text = yaml.safe_dump(MINIMAL) + "stages: {prune: &t {epochs: 3}, quantize: {qat: *t}}\n"
    recipe = load_recipe(write(tmp_path, text), ("stages.prune.epochs=9",))
    assert recipe.stages.prune is not None
    assert recipe.stages.prune.epochs == 9
    assert recipe.stages.quantize.qat.epochs == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [", "cannot be read as YAML"),
        ("a: 1\na: 2", "the key 'a' is written twice"),
        ("name: !!python/object/apply:os.system ['true']", "cannot be read as YAML"),
        ("when: 2020-13-45", "cannot be read as YAML"),
        ("&a [*a]", "repeats itself"),
        ("[" * 3000, "nested too deeply"),
        (
            "\n".join(["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]),
            "repeats",
        ),
        ("", "mapping of keys"),
        ("? [1, 2]\n: 3", "cannot be read as YAML"),
        ("1: 2", "1:"),
    ],
)
def test_text_that_is_no_recipe(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, ("seed=1",))
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe") as caught:
        load_recipe(tmp_path / "absent.yaml")
    assert "absent.yaml" in str(caught.value)
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(RecipeError, match="cannot be read") as caught:
        load_recipe(tmp_path / "bytes.yaml")
    assert "UTF-8" in str(caught.value)


_keys = st.sampled_from(
    sorted(
        {"name", "checkpoint", "data", "path", "split", "source", "stages", "distill", "prune", "quantize", "schemes",
         "qat", "targets", "budget", "seed", "task", "validation", "student", "width", "epochs", "preprocess"}
    )
) | st.text(max_size=4)  # fmt: skip
_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.dates()
    | st.datetimes()
    | st.binary(max_size=4)
    | st.sampled_from(
        ["npz", "idx", "int8_static", "unlabelled", "${HOME}", "${NO_SUCH_VARIABLE_HERE}", "~nobody-at-all/x"]
    )
)
_trees = st.recursive(_leaves, lambda t: st.lists(t, max_size=4) | st.dictionaries(_keys, t, max_size=5), max_leaves=25)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=_trees)
def test_no_document_raises_anything_but_recipe_error(tmp_path: Path, tree: Any) -> None:
    path = tmp_path / "fuzz.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert str(caught.value)


PLACES = [
    "name",
    "checkpoint",
    "checkpoint.path",
    "data",
    "data.path",
    "data.options",
    "data.split",
    "data.split.validation",
    "stages",
    "stages.distill",
    "stages.distill.student",
    "stages.quantize.schemes",
    "targets",
    "seed",
    "budget.confidence",
    "benchmark",
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.sampled_from(PLACES), tree=_trees)
def test_one_wild_value_in_a_good_recipe(tmp_path: Path, where: str, tree: Any) -> None:
    path = write(tmp_path, changed(where, tree))
    try:
        recipe = load_recipe(path)
    except RecipeError as error:
        assert len(str(error)) < 20_000  # noqa: PT017  (both outcomes are right)
        return
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=60)
    | st.text(alphabet="-:[]{}&*!|>?'\"%@`#, \n\tab01~<=.eE+", max_size=60).map(str.encode)
)
@example(content=b"!!int a")
@example(content=b"!!float {}")
@example(content=b"!!binary \xc3\xa9")
@example(content=b"!!timestamp x")
@example(content=b"<<: 3")
@example(content=b"!!bool maybe")
@example(content=b"= : =")
@example(content=b"1" * 5000)
def test_no_bytes_raise_anything_but_recipe_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fuzz.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError):
        load_recipe(path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    override=st.text(max_size=20) | st.tuples(_keys, _keys, st.text(max_size=8)).map(lambda t: f"{t[0]}.{t[1]}={t[2]}")
)
def test_no_override_raises_anything_but_recipe_error(tmp_path: Path, override: str) -> None:
    path = write(tmp_path, FULL)
    try:
        recipe = load_recipe(path, (override,))
    except RecipeError as error:
        assert str(error)  # noqa: PT017  (both outcomes are right)
        return
    assert isinstance(recipe, Recipe)


@pytest.mark.parametrize(
    "quantize", [{"repair": ["adaround"]}, {"granularity": "per_tensor"}], ids=["repaired", "one scale a tensor"]
)
def test_what_would_undo_shared_weights_is_refused_beside_them(quantize: dict[str, Any]) -> None:
    parse_recipe(changed("stages", {"quantize": quantize}))
    assert "shared weights" in refused(changed("stages", {"quantize": quantize, "cluster": {"clusters": 16}}))
