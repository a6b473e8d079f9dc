"""What is tried for models that saturate on their target, and what is kept."""

from __future__ import annotations

import numpy as np
import pytest

from edgemill.emulate.cure import Cure, cured, cures, evidence, saturates, treat
from edgemill.emulate.machine import how_executed
from edgemill.errors import InvariantError, ToolchainError
from edgemill.quantize import DynamicSettings, Fp16Settings, QatSettings, StaticSettings
from edgemill.targets.spec import WeightType
from edgemill.validate.divergence import Divergence
from edgemill.validate.divergence_measure import measure
from tests.emulate.models import ANDROID, ARM, AVX2, BARE, OLD_SERVER, SERVER, VNNI

ALL = (Cure.NONE, Cure.REDUCE_RANGE, Cure.UINT8_WEIGHTS)
EMULATED = how_executed(AVX2, SERVER)


def divergence(off: float) -> Divergence:
    exact = np.array([[0.0, 10.0], [4.0, 1.0]], np.float32)
    difference = measure(exact, exact + np.float32(off), "test")
    return Divergence(
        reference="r",
        target="t",
        source="emulated:x",
        samples=2,
        output=difference,
        first=None,
        traced=0,
        faithful=None,
    )


@pytest.mark.parametrize(("target", "does"), [(AVX2, True), (VNNI, False), (ARM, False), (ANDROID, False)])
def test_who_saturates(target, does):
    assert saturates(target) is does


def test_cures_of_a_scheme():
    static, dynamic = StaticSettings(int8=AVX2.int8), DynamicSettings(int8=AVX2.int8)
    assert cures(AVX2, static) == ALL
    assert cures(AVX2, dynamic) == ALL
    assert cures(AVX2, QatSettings(), trained=True) == (Cure.NONE, Cure.UINT8_WEIGHTS)
    assert cures(AVX2, Fp16Settings()) == (Cure.NONE,)
    assert cures(AVX2, None) == (Cure.NONE,)
    assert cures(VNNI, StaticSettings(int8=VNNI.int8)) == (Cure.NONE,)
    for settled in ({"reduce_range": True}, {"weights": WeightType.UINT8}):
        settings = StaticSettings(int8=AVX2.int8.model_copy(update=settled))
        assert cures(AVX2, settings) == (Cure.NONE,)


def test_cured_settings_differ_in_the_range_only():
    settings = StaticSettings(int8=AVX2.int8, batch_size=7)
    changed = cured(settings, Cure.REDUCE_RANGE)
    assert changed.int8.reduce_range
    assert changed.model_copy(update={"int8": settings.int8}) == settings
    assert cured(settings, Cure.NONE) == settings
    with pytest.raises(InvariantError):
        cured(QatSettings(), Cure.REDUCE_RANGE)


def run(off: dict[Cure, float | None], options=ALL, machine=EMULATED, suffices=None):
    made = []

    def make(cure):
        made.append(cure)
        if off[cure] is None:
            raise ToolchainError("it cannot be made")
        return cure

    return treat(options, machine, make, lambda cure: divergence(off[cure]), suffices), made


def test_a_model_that_does_not_part_is_left_alone():
    treatment, made = run({Cure.NONE: 0.0})
    assert treatment.kept is Cure.NONE
    assert made == [Cure.NONE]
    assert evidence(EMULATED, treatment).cures == ()


def test_the_first_cure_that_helps_is_kept_and_all_that_was_tried_is_told():
    treatment, made = run({Cure.NONE: 2.0, Cure.REDUCE_RANGE: 1.0, Cure.UINT8_WEIGHTS: 0.0})
    assert treatment.kept is treatment.made is Cure.UINT8_WEIGHTS
    assert made == list(ALL)
    told = evidence(EMULATED, treatment)
    assert [line.partition(":")[0] for line in told.cures] == ["as_it_is", "reduce_range", "uint8_weights"]
    assert told.cures[-1].endswith("kept")
    assert told.source == "emulated:qemu-x86_64"
    assert told.bit_equal == 1.0
    treatment, made = run({Cure.NONE: 2.0, Cure.REDUCE_RANGE: 0.0, Cure.UINT8_WEIGHTS: 0.0})
    assert treatment.kept is Cure.REDUCE_RANGE
    assert made == [Cure.NONE, Cure.REDUCE_RANGE]


def test_a_cure_that_costs_too_much_gives_way_to_one_that_does_not():
    good_enough = {Cure.REDUCE_RANGE: False, Cure.UINT8_WEIGHTS: True}
    off = {Cure.NONE: 2.0, Cure.REDUCE_RANGE: 0.0, Cure.UINT8_WEIGHTS: 0.0}
    assert run(off, suffices=good_enough.get)[0].kept is Cure.UINT8_WEIGHTS
    treatment, _ = run(off, suffices=lambda made: False)
    assert treatment.kept is treatment.made is Cure.REDUCE_RANGE
    assert "no cure stands up" in treatment.note


def test_a_cure_that_cannot_be_made_is_passed_over():
    treatment, _ = run({Cure.NONE: 2.0, Cure.REDUCE_RANGE: None, Cure.UINT8_WEIGHTS: 0.0})
    assert treatment.kept is Cure.UINT8_WEIGHTS
    assert treatment.trials[1].failure == "it cannot be made"


def test_where_nothing_helps_the_gate_judges_the_model_as_it_is():
    treatment, _ = run({Cure.NONE: 2.0, Cure.REDUCE_RANGE: 1.0, Cure.UINT8_WEIGHTS: 1.0})
    assert treatment.kept is treatment.made is Cure.NONE
    assert treatment.note == "no cure ended the divergence"


@pytest.mark.parametrize(("options", "kept"), [(ALL, Cure.REDUCE_RANGE), ((Cure.NONE,), Cure.NONE)])
def test_without_the_targets_arithmetic_a_safe_form_is_taken_unseen(options, kept):
    machine = how_executed(AVX2, BARE)
    treatment, made = run(dict.fromkeys(ALL, 0.0), options, machine)
    assert treatment.kept is kept
    assert made == [kept]
    assert treatment.divergence is None
    told = evidence(machine, treatment)
    assert told.source == "proxy:x86_64-host"
    assert ("unseen" in " ".join(told.cures)) is (kept is not Cure.NONE)


def test_a_host_that_saturates_itself_is_not_trusted_blindly():
    # on the target's own CPU the probe runs too: reference and target differ by their kernels
    treatment, made = run({Cure.NONE: 2.0, Cure.REDUCE_RANGE: 0.0}, machine=how_executed(AVX2, OLD_SERVER))
    assert treatment.kept is Cure.REDUCE_RANGE
    assert made == [Cure.NONE, Cure.REDUCE_RANGE]


def test_a_model_that_cannot_be_made_at_all_is_its_own_failure():
    with pytest.raises(ToolchainError):
        run({Cure.NONE: None})
