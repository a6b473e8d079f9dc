"""From the text of a recipe to plain values, and from a refusal to words. Knows no key of the recipe."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Hashable
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from edgemill.errors import RecipeError

_MAX_DEPTH = 40
_MAX_VALUES = 100_000
_MAX_SHOWN = 80


class _Loader(yaml.SafeLoader):
    """YAML without tags that build objects; a key that is written twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is written twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(text: str, where: str) -> Any:
    """Parse YAML into values that share no parts.

    Raises:
        RecipeError: the text is not YAML, has a key twice, or is nested or repeated without end.
    """
    try:
        return plain(yaml.load(text, _Loader), where)
    except RecursionError as error:
        raise RecipeError("The YAML is nested too deeply.", where=where) from error
    # Besides YAMLError, PyYAML lets through what int(), date() and b64decode() raise.
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise RecipeError("This cannot be read as YAML.", where=where, got=str(error)) from error


def plain(value: Any, where: str) -> Any:
    """A copy without YAML aliases, so that changing one place changes one place.

    Raises:
        RecipeError: aliases make the value endless or huge.
    """
    budget = [_MAX_VALUES]

    def copy(item: Any, depth: int) -> Any:
        budget[0] -= 1
        if depth > _MAX_DEPTH or budget[0] < 0:
            raise RecipeError(
                "The recipe is nested too deeply or repeats itself without end.",
                where=where,
                expected=f"at most {_MAX_DEPTH} levels and {_MAX_VALUES} values",
            )
        if isinstance(item, dict):
            return {key: copy(part, depth + 1) for key, part in item.items()}
        if isinstance(item, list | tuple):
            return [copy(part, depth + 1) for part in item]
        return item

    return copy(value, 0)


def expand(value: Any, where: str) -> Any:
    """Replace ${NAME} in every text by the environment variable.

    Raises:
        RecipeError: a variable is not set or empty, with the path of the key.
    """
    if isinstance(value, str):

        def variable(match: re.Match[str]) -> str:
            name = match.group(1)
            found = os.environ.get(name)
            if not found:
                raise RecipeError(
                    f"The environment variable {name} is {'empty' if found == '' else 'not set'}.",
                    where=where,
                    got=value,
                    remedy=f"export {name}=... and run again",
                )
            return found

        return re.sub(r"\$\{(\w+)\}", variable, value)
    if isinstance(value, dict):
        return {key: expand(item, f"{where}.{key}" if where else str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item, f"{where}.{index}") for index, item in enumerate(value)]
    return value


def override(document: dict[str, Any], text: str) -> None:
    """Apply `key.path=value` in place; the value is YAML.

    Raises:
        RecipeError: the text has another form, or goes through something that is not a mapping.
    """
    where = f"--set {text}"
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise RecipeError("An override has the form key.path=value.", where="--set", got=text)
    *parents, last = key.split(".")
    node: Any = document
    for index, part in enumerate((*parents, last)):
        if not isinstance(node, dict):
            raise RecipeError(
                "An override goes through something that is not a mapping of keys.",
                where=where,
                got=f"{'.'.join(parents[:index])} is {shown(node)}",
                remedy="set that key as a whole, e.g. --set 'targets=[x86-64-vnni]'",
            )
        if index < len(parents):
            if node.get(part) is None:
                node[part] = {}
            node = node[part]
    node[last] = read_yaml(value, where)


def refusal(error: ValidationError, model: type[BaseModel], source: str) -> RecipeError:
    """What pydantic found, with the path of every wrong key, what was found and what is right."""
    details = []
    for item in error.errors(include_url=False):
        path = ".".join(str(part) for part in item["loc"]) or "recipe"
        whole = isinstance(item["input"], dict | BaseModel) and item["type"] == "value_error"
        silent = whole or item["type"] == "missing"
        details.append(f"{path}: {_explain(item, model)}" + ("" if silent else f" (found {shown(item['input'])})"))
    return RecipeError(
        f"The recipe has {len(details)} mistake{'s' if len(details) > 1 else ''}.",
        where=source,
        got="; ".join(details),
        remedy="correct the named keys; docs/recipe.md lists all of them",
    )


def shown(value: Any) -> str:
    """A value for an error text, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


def _explain(item: Any, model: type[BaseModel]) -> str:
    kind, loc = item["type"], item["loc"]
    if kind == "missing":
        return "this key is required"
    if kind == "extra_forbidden":
        known = _keys(model, loc[:-1])
        near = difflib.get_close_matches(str(loc[-1]), known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        return f"unknown key; {hint}known here: {', '.join(known)}"
    if kind in ("model_type", "model_attributes_type"):
        return f"must be a mapping of keys; known here: {', '.join(_keys(model, loc))}"
    if kind == "tuple_type":
        return f"must be a list, e.g. [{item['input']}]"
    message: str = item["msg"]
    return message.removeprefix("Value error, ")


def _keys(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    section: type[BaseModel] | None = model
    for part in loc:
        section = _child(section, str(part))
    return sorted(section.model_fields) if section is not None else []


def _child(parent: type[BaseModel] | None, key: str) -> type[BaseModel] | None:
    if parent is None or key not in parent.model_fields:
        return None
    annotation = parent.model_fields[key].annotation
    for option in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None
