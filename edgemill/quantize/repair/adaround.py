"""AdaRound: weights are rounded up or down by what the answers of their layer lose least by.

After Nagel, Amjad, van Baalen, Louizos, Blankevoort: "Up or Down? Adaptive Rounding for Post-Training Quantization"
(ICML 2020), sections 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from edgemill.quantize.onnx_graph import Editor
from edgemill.quantize.repair.locate import clamp, find_layers
from edgemill.quantize.repair.patches import answers, positions, rows, windows
from edgemill.quantize.repair.probe import Probe, Samples
from edgemill.quantize.repair.quantized import Layer
from edgemill.quantize.repair.report import Report
from edgemill.quantize.repair.rounding import Problem, Rounding, learn
from edgemill.recipe import Repair

ITERATIONS = 1000
"""Updates for every layer."""
_ROWS = 8192
_BYTES = 64 << 20
# Of four positions one is not learnt from but decides whether the learnt rounding is kept.
_HELD_OUT = 4


def adaround(
    model: onnx.ModelProto,
    reference: onnx.ModelProto,
    samples: Samples,
    reduce_range: bool,
    seed: int,
    iterations: int = ITERATIONS,
    report: Callable[[float, str], None] = lambda fraction, message: None,
) -> Report:
    """Learn the rounding of every quantized layer of a QDQ graph in place, the first layer first.

    Each layer is to answer to what it reads in the quantized graph, with the layers before it already rounded, as it
    does in the float graph to what it reads there (asymmetric reconstruction, section 3.3), after the activation
    function: both are cut off where the graph quantizes the answer. Only some positions
    of the samples are looked at, 8192 or what fits 64 MiB. Output channels do not depend on each
    other; each keeps the learnt rounding only if it has the smaller error on the positions that were held out.

    Args:
        model: made by onnxruntime's quantizer.
        reference: the float graph that was quantized.
        samples: calibration samples.
        reduce_range: whether weights stay within -64..64.
        seed: of the positions and of the batches.
        iterations: updates for every layer.
        report: progress, 0..1.

    Returns:
        for every layer changed: `weights` that are rounded otherwise than before, `channels` that keep what was learnt,
        `error` (squared error of the held out answers after, over before).
    """
    found, left = find_layers(model, reference, reduce_range)
    layers: dict[str, dict[str, float | int]] = {}
    for index, layer in enumerate(found):
        report(index / len(found), f"learning the rounding of layer {index + 1} of {len(found)}")
        draw = np.random.default_rng([seed, index])
        problem = _problem(layer, model, reference, samples, draw)
        before = layer.integers
        # Threads of BLAS cost more than they bring for matrices this small, and would change the last bits.
        with threadpool_limits(1, "blas"):
            changed = _apply(layer, learn(problem, iterations, draw), problem)
        if changed is None:
            left[layer.name] = "rounding to nearest has the smallest error"
        else:
            layers[layer.name] = changed | {"weights": int(np.count_nonzero(layer.integers != before))}
    return Report(Repair.ADAROUND, layers, left, {"iterations": iterations})


def _apply(layer: Layer, rounding: Rounding, problem: Problem) -> dict[str, float | int] | None:
    before = layer.linear.matrix(layer.integers)
    old, new = problem.errors(before, held_out=True), problem.errors(rounding.integers, held_out=True)
    better = new < old
    kept = np.where(better[:, :, None], rounding.integers, before)
    if (kept == before).all():
        return None
    layer.set_integers(layer.linear.stored(kept))
    return {"channels": int(better.sum()), "error": float(np.where(better, new, old).sum() / old.sum())}


def _problem(
    layer: Layer, model: onnx.ModelProto, reference: onnx.ModelProto, samples: Samples, draw: np.random.Generator
) -> Problem:
    view = layer.linear
    width = view.groups * view.matrix(layer.weight).shape[2]
    most = max(min(_ROWS, _BYTES // (4 * width)), _HELD_OUT)
    each = max(most // max(samples.size, 1), 1)
    found, exact = Probe(model, [layer.entry]), Probe(reference, [layer.expected])
    seen: list[NDArray[np.float32]] = []
    wanted: list[NDArray[np.float32]] = []
    for x in samples:
        inputs = windows(view, found(x)[layer.entry])
        targets = answers(view, exact(x)[layer.expected])
        grid = targets.shape[1:-1]
        for one, target in zip(inputs, targets, strict=True):
            if len(seen) * each >= most:
                break
            at = positions(grid, each, draw) if grid else ()
            seen.append(one[at].reshape(-1, width))
            wanted.append(target[at].reshape(-1, view.outputs))
    factors, targets = rows(view, np.concatenate(seen)), np.concatenate(wanted)
    low, high = clamp(Editor(model), layer.answer)
    shape = (view.groups, view.outputs // view.groups)
    return Problem(
        factors=factors,
        targets=targets.reshape(len(targets), *shape).transpose(1, 0, 2),
        weight=view.matrix(layer.weight).astype(np.float64),
        scale=layer.scales.astype(np.float64).reshape(shape),
        bias=layer.bias.reshape(shape),
        limits=(layer.lowest, layer.highest),
        clamp=(low, high),
        held_out=np.arange(len(targets)) % _HELD_OUT == 0,
    )
