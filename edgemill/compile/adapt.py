"""The contract with the target's runtime, checked before compiling: what is too new is rewritten where that is safe."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import ModelProto, inliner, version_converter

from edgemill.compile.onnx_graph import DEFAULT_DOMAINS, all_nodes, opset_of
from edgemill.errors import ToolchainError
from edgemill.targets.spec import Target


def lower_opset(model: ModelProto, target: Target, where: str) -> tuple[ModelProto, list[str]]:
    """A model in an opset that the target's oldest runtime reads.

    Operators that are younger than the target's opset are replaced by the functions of older operators that the ONNX
    standard defines them as (Gelu by Erf, Swish by Sigmoid and Mul); then the whole is converted. Whether the
    answers stay the same is for the caller to compare.

    Args:
        model: of any opset.
        target: with the highest opset that it reads, or None for any.
        where: the file, for messages.

    Returns:
        The model, and what was done to it in words; the model itself and nothing where it fits as it is.

    Raises:
        ToolchainError: naming the operators that have no older form.
    """
    have = opset_of(model)
    if target.opset is None or have <= target.opset:
        return model, []
    young = sorted({name for name in _operators(model) if not onnx.defs.has(name, target.opset, "")})
    try:
        older = model
        if young:
            typed = onnx.shape_inference.infer_shapes(_with_defaults(model, young, have))
            older = inliner.inline_selected_functions(
                typed, [("", name) for name in young], exclude=False, inline_schema_functions=True
            )
        lowered = version_converter.convert_version(older, target.opset)
        onnx.checker.check_model(lowered)
    except Exception as error:  # onnx raises RuntimeError and exceptions of its own without a common base
        raise _refusal(target, where, have, young, error) from error
    if left := [name for name in young if name in _operators(lowered)]:
        raise _refusal(target, where, have, left, None)
    replaced = f", {', '.join(young)} replaced by older operators" if young else ""
    return lowered, [f"opset {have} lowered to {target.opset}{replaced}"]


def _with_defaults(model: ModelProto, names: list[str], opset: int) -> ModelProto:
    """A copy with every attribute written out that was left at its default: the inliner loses those (onnx 1.23)."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for node in all_nodes(copy.graph):
        if node.op_type not in names or node.domain not in DEFAULT_DOMAINS:
            continue
        given = {attribute.name for attribute in node.attribute}
        for name, attribute in sorted(onnx.defs.get_schema(node.op_type, opset, "").attributes.items()):
            if name not in given and attribute.default_value.type:
                node.attribute.append(attribute.default_value)
    return copy


def _operators(model: ModelProto) -> set[str]:
    return {node.op_type for node in all_nodes(model.graph) if node.domain in DEFAULT_DOMAINS}


def _refusal(target: Target, where: str, have: int, young: list[str], error: Any) -> ToolchainError:
    reason = "" if error is None else f": {' '.join(str(error).split())[:160]}"
    return ToolchainError(
        f"The model needs a newer runtime than {target.name} has.",
        where=where,
        expected=f"opset {target.opset} at most ({target.runtime.name} {target.runtime.minimum})",
        got=f"opset {have}" + (f" with {', '.join(young)}" if young else reason),
        remedy=f"export the model with opset {target.opset}",
    )
