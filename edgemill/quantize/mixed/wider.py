"""Which number formats a target's runtime has for what int8 breaks. Light: recipes are checked with it."""

from __future__ import annotations

from edgemill.errors import RecipeError
from edgemill.recipe import Recipe, Scheme, Wider
from edgemill.targets import load_target
from edgemill.targets.spec import Target

FORMATS: dict[str, tuple[Wider, ...]] = {"onnxruntime": (Wider.FP16, Wider.FP32)}
"""By runtime, narrowest first. fp16 in onnxruntime on the CPU: stored as float16, computed as float32."""

_WHY_NOT = {
    ("onnxruntime", Wider.INT16): "onnxruntime has no int16 kernels for the CPU: quantized to int16, operators are "
    "converted to float32 and back, which made a depthwise network 5 times slower than float32",
}
_DEFAULT = (Wider.FP32,)


def wider_formats(target: Target, wanted: tuple[Wider, ...]) -> tuple[Wider, ...]:
    """The formats that int8_mixed tries for a target, narrowest first, fp32 always last.

    Left out in the recipe, this is fp32 alone: on the CPUs of the catalog nothing between int8 and fp32
    is faster than fp32; fp16 makes the file smaller.

    Args:
        target: the device class.
        wanted: `stages.quantize.mixed.wider` of the recipe.

    Raises:
        RecipeError: the target's runtime has none of them, or lacks one.
    """
    if (reason := lacks(target, wanted)) is not None:
        has = FORMATS.get(target.runtime.name, ())
        raise RecipeError(
            f"{target.name} lacks a number format that int8_mixed is to use.",
            where="stages.quantize.mixed.wider",
            expected=f"one or more of {', '.join(has)}" if has else "another scheme",
            got=reason,
        )
    chosen = set(wanted or _DEFAULT) | set(_DEFAULT)
    return tuple(item for item in FORMATS[target.runtime.name] if item in chosen)


def lacks(target: Target, wanted: tuple[Wider, ...]) -> str | None:
    """What of the wanted formats the target's runtime does not have, and why; None where nothing is missing."""
    has = FORMATS.get(target.runtime.name)
    if has is None:
        return f"{target.runtime.name} has no int8_mixed"
    missing = [item for item in wanted if item not in has]
    if not missing:
        return None
    name = target.runtime.name
    return "; ".join(f"{item}: {_WHY_NOT.get((name, item), f'{name} does not run it')}" for item in missing)


def check_wider(recipe: Recipe) -> None:
    """Refuse formats that no runtime of the recipe's targets has, before anything runs.

    Raises:
        RecipeError: a target that runs int8_mixed lacks a format that the recipe asks for.
    """
    rules = recipe.stages.quantize
    if Scheme.INT8_MIXED not in rules.schemes:
        return
    for target in map(load_target, recipe.targets):
        if Scheme.INT8_MIXED in target.formats:
            wider_formats(target, rules.mixed.wider)
