"""Checks of a recipe against the world, before anything runs: files, targets, formats."""

from __future__ import annotations

from pathlib import Path

from edgemill.data import source_digest
from edgemill.errors import CheckpointError, RecipeError
from edgemill.ingest.detect import detect
from edgemill.quantize.mixed.wider import check_wider
from edgemill.recipe import Recipe
from edgemill.targets import load_target


def check_recipe(recipe: Recipe) -> None:
    """Refuse in a second what would fail after an hour.

    Raises:
        RecipeError: a target is unknown, lacks a number format that was asked for, or runs none of the schemes.
        CheckpointError: the checkpoint is missing, not a checkpoint, or of a refused kind.
        DataError: the data source is missing.
    """
    targets = [load_target(name) for name in recipe.targets]
    if len({target.name for target in targets}) != len(targets):
        raise RecipeError("Two targets have the same name.", where="targets", got=", ".join(recipe.targets))
    for target in targets:
        usable = [scheme for scheme in recipe.stages.quantize.schemes if scheme in target.formats]
        if not usable:
            raise RecipeError(
                f"None of the number formats runs on {target.name}.",
                where="stages.quantize.schemes",
                expected=f"one of {', '.join(target.formats)}",
                got=", ".join(recipe.stages.quantize.schemes),
            )
    check_wider(recipe)
    path = Path(recipe.checkpoint.path)
    if not path.exists() and not path.with_name(path.name + ".index").exists():
        raise CheckpointError(
            "There is no such checkpoint.",
            where=str(path),
            remedy="correct checkpoint.path; it counts from the recipe's folder",
        )
    detect(path)
    source_digest(recipe.data)
