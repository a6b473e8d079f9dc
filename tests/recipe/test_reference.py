"""docs/recipe.md names every key, and its examples are recipes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from edgemill.data.options import OPTIONS, check_options
from edgemill.recipe import Recipe, load_recipe, parse_recipe

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def keys(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        for option in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(option, type) and issubclass(option, BaseModel):
                yield from keys(option)


def test_every_key_is_described() -> None:
    described = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    existing = set(keys(Recipe)).union(*(keys(model) for model in OPTIONS.values()))
    assert len(existing) > 40
    assert existing == described - {"idx", "npz", "npy", "image_folder", "parquet"}


def test_no_key_is_without_meaning() -> None:
    assert "| None |" not in PAGE


def test_tables_are_those_of_the_models() -> None:
    script = ROOT / "docs" / "generate_recipe_reference.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=False
    )
    assert done.returncode == 0, "run python docs/generate_recipe_reference.py"


@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_examples_of_the_page(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASHION_MNIST_DIR", "/data")
    recipe = parse_recipe(yaml.safe_load(text))
    check_options(recipe.data)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*/recipe.yaml")), ids=lambda path: path.parent.name)
def test_recipes_of_the_examples(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASHION_MNIST_DIR", "/data")
    recipe = load_recipe(path)
    assert Path(recipe.checkpoint.path).is_file()
    check_options(recipe.data)
