"""Which targets of a recipe can be tried on this machine; the others are named, never silently absent."""

from __future__ import annotations

from edgemill.errors import ToolchainError
from edgemill.lack import Lack, commands, told
from edgemill.recipe import Recipe
from edgemill.summary import TargetResult
from edgemill.targets import load_target
from edgemill.targets.capability import blockers


def skip_unready(recipe: Recipe, *, strict: bool) -> tuple[Recipe, dict[str, TargetResult]]:
    """The recipe with the targets that can be tried, and by name the result of each that cannot.

    Args:
        strict: a target that cannot be tried is an error.

    Raises:
        ToolchainError: none can be tried, or `strict` and one cannot.
    """
    skipped: dict[str, TargetResult] = {}
    missing: list[Lack] = []
    ready = []
    for name in recipe.targets:
        target = load_target(name)
        if lacks := blockers(target):
            missing += lacks
            skipped[target.name] = TargetResult(target=target.name, title=target.title, skipped=told(lacks))
        else:
            ready.append(name)
    if skipped and (strict or not ready):
        raise ToolchainError(
            "Targets cannot be tried on this machine."
            if ready
            else "None of the targets can be tried on this machine.",
            where=", ".join(skipped),
            got="; ".join(dict.fromkeys(lack.what for lack in missing)),
            remedy=" && ".join(commands(missing)),
        )
    return recipe.model_copy(update={"targets": tuple(ready)}), skipped
