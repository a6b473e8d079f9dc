"""Targets of the user's own, beside the catalog."""

import pytest

from edgemill.errors import RecipeError
from edgemill.recipe import load_recipe
from edgemill.targets import load_target, target_names

OWN = """
extends: raspberry-pi-5
title: Our gateway
limits: {ram_bytes: 1000000}
"""


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEMILL_TARGETS", str(tmp_path))
    return tmp_path


def test_own_target_takes_the_rest_from_what_it_extends(own_folder):
    (own_folder / "our-gateway.yaml").write_text(OWN)
    own, base = load_target("our-gateway"), load_target("raspberry-pi-5")
    assert "our-gateway" in target_names()
    assert (own.name, own.title, own.limits.ram_bytes) == ("our-gateway", "Our gateway", 1_000_000)
    same = {"name": base.name, "title": base.title, "limits": base.limits}
    assert own.model_copy(update=same) == base


def test_limits_decide_no_file(own_folder):
    (own_folder / "our-gateway.yaml").write_text(OWN)
    own, base = load_target("our-gateway"), load_target("raspberry-pi-5")
    assert own.digest != base.digest
    assert own.essence.model_copy(update={"name": base.name}) == base.essence


def test_sections_are_merged_key_by_key(own_folder):
    (own_folder / "a.yaml").write_text("extends: raspberry-pi-5\nlimits: {flash_bytes: 5}\n")
    (own_folder / "b.yaml").write_text("extends: a\nlimits: {ram_bytes: 7}\n")
    limits = load_target("b").limits
    assert (limits.flash_bytes, limits.ram_bytes) == (5, 7)


def test_own_file_may_stand_for_the_catalogs(own_folder):
    (own_folder / "raspberry-pi-5.yaml").write_text("extends: raspberry-pi-5\nlimits: {ram_bytes: 3}\n")
    assert load_target("raspberry-pi-5").limits.ram_bytes == 3


def test_a_file_is_named_by_its_path(tmp_path):
    (tmp_path / "board.yaml").write_text(OWN)
    assert load_target(str(tmp_path / "board.yaml")).name == "board"


def test_a_recipe_names_files_from_its_own_folder(tmp_path):
    (tmp_path / "board.yaml").write_text(OWN)
    (tmp_path / "recipe.yaml").write_text(
        "name: x\ncheckpoint: {path: m.keras}\n"
        "data: {source: 'sklearn:digits', split: {validation: 9, calibration: 9}}\n"
        "targets: [board.yaml, x86-64-vnni]\n"
    )
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert recipe.targets == (str(tmp_path / "board.yaml"), "x86-64-vnni")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no YAML mapping"),
        ("[1, 2]", "no YAML mapping"),
        ("title: [", "cannot be read"),
        ("extends: raspberry-pi-9\n", "Unknown target"),
        ("extends: own\n", "Unknown target"),
        ("extends: raspberry-pi-5\nlimits: {ram: 5}\n", "not valid"),
        ("extends: raspberry-pi-5\nlimits: {ram_bytes: -5}\n", "not valid"),
        ("extends: raspberry-pi-5\nfast: [int4]\n", "not valid"),
        ("extends: raspberry-pi-5\nruntime: {minimum: '3', below: '2'}\n", "not valid"),
        ("extends: raspberry-pi-5\nexecution: {by: simulator}\n", "not valid"),
        ("extends: raspberry-pi-5\nunknown_key: 1\n", "not valid"),
    ],
)
def test_bad_descriptions_get_one_clear_message(own_folder, text, told):
    path = own_folder / "own.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as error:
        load_target("own")
    assert told in error.value.what
    assert error.value.exit_code == 2


def test_binary_files_are_refused(own_folder):
    (own_folder / "own.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError):
        load_target("own")


def test_nearest_names_are_offered():
    with pytest.raises(RecipeError) as error:
        load_target("raspbery-pi5")
    assert "raspberry-pi-5" in error.value.remedy
