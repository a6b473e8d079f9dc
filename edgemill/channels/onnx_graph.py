"""Which channels of an ONNX graph can only be removed together: a walk over its nodes.

Every output channel of a kernel begins as a set of its own; operators that make channels meet (Add, Mul, ...)
join their sets, as in the dependency graph of DepGraph (Fang et al. 2023, section 3). What an operator is not
known to do to channels, it is assumed to mix: everything that goes into it stays whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx
from onnx import NodeProto

from edgemill.channels import onnx_kernel_rules as kernels
from edgemill.channels import onnx_shape_rules as shapes
from edgemill.channels.book import CannotFollowError
from edgemill.channels.groups import ChannelMap, find_groups
from edgemill.channels.onnx_prepare import Prepared, captured
from edgemill.channels.onnx_trace import NodeRef, SizeFix, Trace, title

Rule = Callable[[Trace, NodeProto, NodeRef], None]

_ALONE = (
    *("Abs", "Cast", "Ceil", "Celu", "Clip", "Cos", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid"),
    *("HardSwish", "Identity", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid"),
    *("Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu"),
)
_MERGES = ("Add", "Div", "Max", "Mean", "Min", "Mul", "PRelu", "Pow", "Sub", "Sum")
_POOLS = ("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool")
_REDUCES = ("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare")
_REARRANGES = ("Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze")

RULES: dict[str, Rule] = {
    **dict.fromkeys(_ALONE, shapes.same),
    **dict.fromkeys(_MERGES, shapes.merge),
    **dict.fromkeys(_POOLS, shapes.pool),
    **dict.fromkeys(_REDUCES, shapes.reduce),
    **dict.fromkeys(_REARRANGES, shapes.rearrange),
    "BatchNormalization": kernels.normalization,
    "Concat": shapes.concatenate,
    "Conv": kernels.convolution,
    "ConvTranspose": kernels.transposed,
    "Gemm": kernels.dense,
    "Hardmax": shapes.along,
    "InstanceNormalization": kernels.normalization,
    "LayerNormalization": shapes.layer_norm,
    "LogSoftmax": shapes.along,
    "MatMul": kernels.product,
    "Pad": shapes.pad,
    "Resize": shapes.resize,
    "Shape": shapes.sizes,
    "Slice": shapes.slice_,
    "Softmax": shapes.along,
    "Split": shapes.split,
}


@dataclass(frozen=True)
class OnnxChannels:
    """All channels of an ONNX graph.

    Attributes:
        prepared: the graph; cuts and fixes refer to its nodes.
        map: groups that can be removed, and those left whole with the reason.
        fixes: sizes that change with the channels.
    """

    prepared: Prepared
    map: ChannelMap
    fixes: tuple[SizeFix, ...]


def follow(model: onnx.ModelProto) -> OnnxChannels:
    """Follow the channels of an fp32 graph with one input, batch first.

    Args:
        model: not changed.
    """
    prepared = Prepared(model)
    trace = Trace(prepared)
    for index, node in enumerate(prepared.graph.node):
        _step(trace, node, NodeRef(prepared.names[index], index))
    for item in prepared.graph.output:
        trace.atoms.freeze(trace.flow(item.name).atoms, "the model answers with them")
    for name in sorted(captured(prepared.graph)):
        if not prepared.is_constant(name):
            trace.atoms.freeze(trace.flow(name).atoms, "a part of the graph that runs under a condition reads them")
    return OnnxChannels(prepared, find_groups(trace.book), tuple(trace.fixes))


def _step(trace: Trace, node: NodeProto, ref: NodeRef) -> None:
    if not trace.activations(node):
        return
    rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if rule is None:
        trace.stop(node, f"{title(node)} is not known to keep channels apart")
        return
    known = len(trace.book.cuts)
    try:
        rule(trace, node, ref)
        return
    except CannotFollowError as error:
        reason = str(error)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        reason = f"{title(node)} does not have the inputs and settings that its operator asks for"
    for cut in trace.book.cuts[known:]:
        trace.atoms.freeze(cut.atoms, reason)
    trace.stop(node, reason)
