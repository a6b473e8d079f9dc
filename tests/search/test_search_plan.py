import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemill.errors import RecipeError
from edgemill.recipe import (
    Channels,
    Cluster,
    Distill,
    Family,
    Preset,
    Prune,
    PruneMethod,
    Search,
    Space,
    Stages,
    Student,
)
from edgemill.recipe.quantizing import Mixed, Quantize, Scheme, Wider
from edgemill.search.knobs import Knobs, from_record, name_of
from edgemill.search.plan import resolve, stages_of


def quantized(*schemes: Scheme, **others: object) -> Stages:
    return Stages.model_validate({"quantize": Quantize(schemes=schemes), **others})


STATIC = quantized(Scheme.INT8_STATIC)


class TestNames:
    def test_every_stage_that_is_there_has_a_part(self) -> None:
        knobs = Knobs(Scheme.INT8_QAT, width=1 / 3, keep=0.5, sparsity=0.5, clusters=16)
        assert name_of(knobs) == "w0.333-k0.5-s0.5-c16-int8_qat"

    def test_what_is_neutral_has_no_part(self) -> None:
        assert name_of(Knobs(Scheme.FP16)) == "fp16"
        assert name_of(Knobs(Scheme.INT8_STATIC, clusters=8)) == "c8-int8_static"

    def test_the_fallback_is_part_of_the_name(self) -> None:
        assert name_of(Knobs(Scheme.INT8_MIXED, fallback=(Wider.INT16,))) == "int8_mixed-int16"

    @given(
        st.builds(
            Knobs,
            scheme=st.sampled_from(Scheme),
            width=st.floats(0.01, 1),
            keep=st.floats(0.01, 1),
            sparsity=st.floats(0, 0.99),
            clusters=st.integers(0, 128),
            fallback=st.sampled_from([(), (Wider.FP16,), (Wider.INT16, Wider.FP32)]),
        )
    )
    def test_knobs_survive_their_record(self, knobs: Knobs) -> None:
        assert from_record(knobs.record()) == knobs

    @pytest.mark.parametrize("preset", Preset)
    def test_no_two_chains_of_a_preset_share_a_name(self, preset: Preset) -> None:
        plan = resolve(Search(preset=preset), quantized(*Scheme), trainable=True)
        assert len({name_of(knobs) for knobs in plan.candidates}) == len(plan.candidates)

    def test_choices_that_would_share_a_name_are_refused(self) -> None:
        with pytest.raises(RecipeError, match="same name"):
            resolve(Search(space=Space(width=(0.3331, 0.3332))), STATIC, trainable=True)


class TestPresets:
    def test_what_the_recipe_says_goes_before_the_preset(self) -> None:
        plan = resolve(Search(trials=3, time_budget_s=5, space=Space(width=(0.4,))), STATIC, trainable=True)
        assert plan.trials == 3
        assert plan.time_budget_s == 5
        assert plan.choices.width == (0.4,)
        assert len(plan.choices.sparsity) > 1

    def test_epochs_that_the_recipe_names_stay(self) -> None:
        own = Stages(distill=Distill(student=Student(width=0.5), epochs=7), prune=Prune(sparsity=0.6))
        plan = resolve(Search(preset=Preset.FAST), own, trainable=True)
        assert plan.stages.distill is not None
        assert plan.stages.distill.epochs == 7
        assert plan.stages.prune is not None
        assert plan.stages.prune.epochs != Prune().epochs

    def test_thorough_trains_longer_than_default_and_default_longer_than_fast(self) -> None:
        epochs = []
        for preset in (Preset.FAST, Preset.DEFAULT, Preset.THOROUGH):
            distill = resolve(Search(preset=preset), STATIC, trainable=True).stages.distill
            assert distill is not None
            epochs.append(distill.epochs)
        assert epochs == sorted(set(epochs))

    def test_the_chain_without_a_search_is_a_candidate(self) -> None:
        own = Stages(
            distill=Distill(student=Student(width=0.45)), prune=Prune(sparsity=0.65), cluster=Cluster(clusters=24)
        )
        plan = resolve(Search(), own, trainable=True)
        assert Knobs(Scheme.INT8_STATIC, 0.45, 1.0, 0.65, 24) in plan.candidates
        assert Knobs(Scheme.INT8_STATIC, 0.45, 1.0, 0.65, 24) in plan.start[:2]

    def test_there_is_a_chain_that_needs_no_training_and_it_is_first(self) -> None:
        assert resolve(Search(), STATIC, trainable=True).start[0] == Knobs(Scheme.INT8_STATIC)

    def test_no_more_trials_are_planned_than_there_are_chains(self) -> None:
        space = Space(width=(0.5,), keep=(1,), sparsity=(0,), clusters=(0,))
        assert resolve(Search(trials=50, space=space), STATIC, trainable=True).trials == 1

    def test_without_labels_the_teacher_is_all_there_is_to_learn_from(self) -> None:
        stages = resolve(Search(), STATIC, trainable=True, labels=False).stages
        trained = (stages.distill, stages.channels, stages.prune, stages.cluster, stages.quantize.qat)
        assert all(stage is not None and stage.soft_weight == 1 for stage in trained)


class TestValidity:
    def test_shared_weights_are_not_combined_with_half_precision(self) -> None:
        plan = resolve(Search(), quantized(Scheme.FP16, Scheme.INT8_STATIC), trainable=True)
        assert all(not knobs.clusters for knobs in plan.candidates if knobs.scheme is Scheme.FP16)
        assert any(knobs.clusters for knobs in plan.candidates)

    def test_two_of_four_is_never_another_share(self) -> None:
        own = Stages(prune=Prune(method=PruneMethod.N_M))
        plan = resolve(Search(space=Space(sparsity=(0, 0.5, 0.8))), own, trainable=True)
        assert {knobs.sparsity for knobs in plan.candidates} == {0, 0.5}
        assert plan.choices.sparsity == (0, 0.5)

    def test_a_checkpoint_that_cannot_be_trained_is_only_quantized(self) -> None:
        plan = resolve(Search(), quantized(Scheme.INT8_STATIC, Scheme.INT8_QAT), trainable=False)
        assert plan.candidates == (Knobs(Scheme.INT8_STATIC),)

    def test_a_student_of_a_family_can_be_trained_whatever_the_checkpoint(self) -> None:
        own = Stages(distill=Distill(student=Student(family=Family.RESNET8, width=0.5)))
        plan = resolve(Search(), own, trainable=False)
        assert {knobs.width for knobs in plan.candidates if knobs.sparsity} >= {0.5}
        assert all(knobs.width < 1 for knobs in plan.candidates if knobs.sparsity or knobs.clusters)

    def test_a_student_function_has_no_width(self) -> None:
        own = Stages(distill=Distill(student=Student(function="python:mine:student")))
        plan = resolve(Search(), own, trainable=True)
        assert plan.choices.width == (1.0,)
        assert all(stages_of(knobs, plan).distill is not None for knobs in plan.candidates)
        with pytest.raises(RecipeError, match="no width"):
            resolve(Search(space=Space(width=(0.5,))), own, trainable=True)

    def test_what_no_target_runs_is_never_proposed(self) -> None:
        stages = quantized(Scheme.FP16, Scheme.INT8_STATIC)
        plan = resolve(Search(), stages, trainable=True, formats=[Scheme.INT8_STATIC])
        assert plan.choices.scheme == (Scheme.INT8_STATIC,)

    def test_a_space_without_a_valid_chain_is_refused_with_reasons(self) -> None:
        with pytest.raises(RecipeError, match="no valid chain") as caught:
            resolve(Search(space=Space(width=(0.5,))), STATIC, trainable=False)
        assert "cannot be narrowed" in str(caught.value)
        assert caught.value.exit_code == 2

    def test_fallback_formats_belong_to_mixed_precision(self) -> None:
        mixed = Quantize(schemes=(Scheme.INT8_STATIC, Scheme.INT8_MIXED), mixed=Mixed(wider=(Wider.INT16, Wider.FP32)))
        plan = resolve(Search(), Stages(quantize=mixed), trainable=True)
        assert all(not knobs.fallback for knobs in plan.candidates if knobs.scheme is Scheme.INT8_STATIC)
        tried = {knobs.fallback for knobs in plan.candidates if knobs.scheme is Scheme.INT8_MIXED}
        assert tried == {(), (Wider.INT16,), (Wider.FP32,)}


class TestStages:
    def test_a_neutral_knob_leaves_its_stage_out(self) -> None:
        plan = resolve(Search(), STATIC, trainable=True)
        stages = stages_of(Knobs(Scheme.INT8_STATIC), plan)
        assert (stages.distill, stages.channels, stages.prune, stages.cluster) == (None, None, None, None)
        assert stages.quantize.schemes == (Scheme.INT8_STATIC,)

    def test_knobs_set_how_far_and_the_recipe_how(self) -> None:
        own = Stages(
            distill=Distill(student=Student(width=0.5), temperature=5),
            channels=Channels(keep=0.6, rounds=2),
            prune=Prune(batch_size=32),
            cluster=Cluster(epochs=9),
        )
        plan = resolve(Search(), own, trainable=True)
        stages = stages_of(Knobs(Scheme.INT8_STATIC, 0.25, 0.7, 0.3, 5), plan)
        assert stages.distill is not None
        assert (stages.distill.student.width, stages.distill.temperature) == (0.25, 5)
        assert stages.channels is not None
        assert (stages.channels.keep, stages.channels.rounds) == (0.7, 2)
        assert stages.prune is not None
        assert (stages.prune.sparsity, stages.prune.batch_size) == (0.3, 32)
        assert stages.cluster is not None
        assert (stages.cluster.clusters, stages.cluster.epochs) == (5, 9)

    def test_the_short_form_is_the_student_alone_for_a_share_of_the_epochs(self) -> None:
        thorough = Search(preset=Preset.THOROUGH)
        plan = resolve(thorough, quantized(Scheme.INT8_QAT, Scheme.INT8_STATIC), trainable=True)
        assert plan.short is not None
        knobs = Knobs(Scheme.INT8_QAT, 0.25, 1.0, 0.5, 16)
        full, short = stages_of(knobs, plan), stages_of(knobs, plan, short=True)
        assert full.distill is not None
        assert short.distill is not None
        assert short.distill.epochs == round(plan.short * full.distill.epochs)
        assert (short.prune, short.cluster) == (None, None)
        assert short.quantize.schemes == (Scheme.INT8_STATIC,)

    @pytest.mark.parametrize("preset", Preset)
    def test_the_stages_of_every_chain_are_a_valid_recipe(self, preset: Preset) -> None:
        plan = resolve(Search(preset=preset), quantized(*Scheme), trainable=True)
        for knobs in plan.candidates:
            stages = stages_of(knobs, plan)
            assert Stages.model_validate(stages.model_dump(mode="json")) == stages
