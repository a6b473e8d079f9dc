"""8-bit models whose answers part from exact arithmetic on their target: what is tried, in order, and what is kept.

x86 without VNNI multiplies uint8 activations by int8 weights with VPMADDUBSW, whose sum of two products
saturates at 16 bits: 255 * 127 * 2 > 32767 (Intel, "Lower numerical precision deep learning inference and
training", 2018). What helps: 7-bit weights, which cannot saturate and keep the fast product but are
coarser, or uint8 weights on the same grid, which are exact and slower.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Generic, TypeVar

from pydantic import BaseModel

from edgemill.artifact import Frozen
from edgemill.emulate.machine import EXACT_PRODUCTS, Machine
from edgemill.errors import EdgemillError, InvariantError
from edgemill.evidence import Arithmetic
from edgemill.targets.cpu import architecture
from edgemill.targets.spec import ActivationType, Int8Arithmetic, Target, WeightType
from edgemill.validate.divergence import Divergence

T = TypeVar("T")
S = TypeVar("S", bound=BaseModel)


class Cure(StrEnum):
    """What is done to a model."""

    NONE = "as_it_is"
    """Nothing: the target's own fast product on 8 bits."""
    REDUCE_RANGE = "reduce_range"
    """7-bit weights, quantized anew."""
    UINT8_WEIGHTS = "uint8_weights"
    """The same numbers, stored as uint8; see `edgemill.quantize.unsigned_weights`."""


class Trial(Frozen):
    """One cure and what came of it."""

    cure: Cure
    divergence: Divergence | None = None
    failure: str = ""

    @property
    def helped(self) -> bool:
        """Whether the answers on the target are those of exact arithmetic."""
        return self.divergence is not None and self.divergence.close


class Treatment(Frozen, Generic[T]):
    """What was tried, and what was made of the model.

    Attributes:
        made: what `make` gave for the cure that was kept.
        kept: that cure.
        trials: in order; the kept one is among them.
        note: why nothing was tried, or why none helped; empty otherwise.
    """

    made: T
    kept: Cure
    trials: tuple[Trial, ...]
    note: str = ""

    @property
    def divergence(self) -> Divergence | None:
        """Of what was kept; None where the target's arithmetic is not at hand."""
        return next((trial.divergence for trial in self.trials if trial.cure is self.kept), None)


def saturates(target: Target) -> bool:
    """Whether products of uint8 by int8 can saturate on CPUs of a target's class."""
    needs = set(target.cpu.any_of)
    return (
        target.runtime.name == "onnxruntime"
        and architecture(target.arch) == "x86_64"
        and target.int8.activations is ActivationType.UINT8
        and not (needs and needs <= EXACT_PRODUCTS)
    )


def cures(target: Target, settings: BaseModel | None, trained: bool = False) -> tuple[Cure, ...]:
    """What can be done for an 8-bit model of a target, in the order in which it is tried.

    Args:
        target: the device class.
        settings: of the quantize step; None where the model is not quantized.
        trained: whether the weights were trained on their 8-bit grid, which 7 bits would not keep.
    """
    if settings is None or not saturates(target):
        return (Cure.NONE,)
    own = getattr(settings, "int8", None)
    if not isinstance(own, Int8Arithmetic):
        return (Cure.NONE, Cure.UINT8_WEIGHTS) if trained else (Cure.NONE,)
    if own.reduce_range or own.weights is WeightType.UINT8:
        return (Cure.NONE,)
    return (Cure.NONE, Cure.UINT8_WEIGHTS) if trained else (Cure.NONE, Cure.REDUCE_RANGE, Cure.UINT8_WEIGHTS)


def cured(settings: S, cure: Cure) -> S:
    """Settings of a quantize step with a cure in them. UINT8_WEIGHTS is not: it is the step UNSIGNED_WEIGHTS after it.

    Raises:
        InvariantError: the settings have no arithmetic to change.
    """
    if cure is not Cure.REDUCE_RANGE:
        return settings
    own = getattr(settings, "int8", None)
    if not isinstance(own, Int8Arithmetic):
        raise InvariantError("Weights of this scheme have no range to reduce.", got=type(settings).__name__)
    return settings.model_copy(update={"int8": own.model_copy(update={"reduce_range": True})})


def treat(
    options: tuple[Cure, ...],
    machine: Machine,
    make: Callable[[Cure], T],
    probe: Callable[[T], Divergence],
    suffices: Callable[[T], bool] | None = None,
) -> Treatment[T]:
    """Make a model, and where its answers on the target part from exact arithmetic try cures until one helps.

    Where the target's arithmetic is not at hand and cures exist, the first of them is taken unseen: none
    of them can saturate. Where none helps, the model is kept as it is, for the gate to judge.

    Args:
        options: from `cures`, NONE first.
        machine: from `how_executed`.
        make: quantizes and compiles with a cure.
        probe: compares what was made, on validation data.
        suffices: a further reason to keep what was cured, e.g. that it stands up on validation data; a cure
            that makes the divergence go but does not suffice is passed over, if another one does.

    Raises:
        EdgemillError: the model cannot be made as it is.
    """
    if options[0] is not Cure.NONE:
        raise InvariantError("Cures begin with none.", got=str(options))
    if not machine.is_targets_own:
        kept = options[1] if len(options) > 1 else Cure.NONE
        note = (
            ""
            if kept is Cure.NONE
            else f"taken unseen, because the target's arithmetic is not at hand: {machine.reason}"
        )
        return Treatment(made=make(kept), kept=kept, trials=(Trial(cure=kept),), note=note)
    plain = make(Cure.NONE)
    trials = [Trial(cure=Cure.NONE, divergence=probe(plain))]
    if trials[0].helped or len(options) == 1:
        return Treatment(made=plain, kept=Cure.NONE, trials=tuple(trials))
    second: tuple[Cure, T] | None = None
    for cure in options[1:]:
        try:
            made = make(cure)
            trials.append(Trial(cure=cure, divergence=probe(made)))
        except EdgemillError as error:
            trials.append(Trial(cure=cure, failure=error.what))
            continue
        if not trials[-1].helped:
            continue
        if suffices is None or suffices(made):
            return Treatment(made=made, kept=cure, trials=tuple(trials))
        second = second or (cure, made)
    if second is not None:
        note = "no cure stands up on validation data; the first that ends the divergence is kept"
        return Treatment(made=second[1], kept=second[0], trials=tuple(trials), note=note)
    return Treatment(made=plain, kept=Cure.NONE, trials=tuple(trials), note="no cure ended the divergence")


def evidence(machine: Machine, treatment: Treatment[T] | None = None) -> Arithmetic:
    """What a report says of the arithmetic of a variant.

    Args:
        machine: which answered the gate's samples.
        treatment: None where host and target were not compared.
    """
    found = None if treatment is None else treatment.divergence
    lines = () if treatment is None else _lines(treatment)
    if found is None:
        return Arithmetic(source=machine.source, note=machine.reason, cures=lines)
    return Arithmetic(
        source=machine.source,
        note=machine.reason,
        compared=found.samples,
        bit_equal=found.output.equal_rows,
        agreement=found.output.agreement,
        max_difference=found.output.max_abs,
        first_layer=None if found.first is None else f"{found.first.operator} {found.first.tensor}",
        cures=lines,
    )


def _lines(treatment: Treatment[T]) -> tuple[str, ...]:
    if len(treatment.trials) == 1 and not treatment.note:
        return ()
    lines = [_line(trial, trial.cure is treatment.kept) for trial in treatment.trials]
    return tuple([*lines, treatment.note] if treatment.note else lines)


def _line(trial: Trial, kept: bool) -> str:
    end = ", kept" if kept else ""
    if trial.failure:
        return f"{trial.cure}: {trial.failure}"
    if trial.divergence is None:
        return f"{trial.cure}{end}"
    out = trial.divergence.output
    where = "" if trial.divergence.first is None else f" from {trial.divergence.first.operator} on"
    same = "" if out.agreement is None else f", {out.agreement:.2%} with the same answer"
    return f"{trial.cure}: {out.closeness}{where}, off by up to {out.max_abs:.3g}{same}{end}"
