"""What is judged, what is chosen, and how the step goes round by round."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from edgemill.channels import ChannelsSettings
from edgemill.channels.cost import BytesCost, MacsCost
from edgemill.channels.geometry import layer_shapes
from edgemill.channels.groups import find_groups
from edgemill.channels.importance import scores
from edgemill.channels.latency_steps import measuring_plan
from edgemill.channels.latency_table import LatencyTable, Measured
from edgemill.channels.plan import Costs, least_cost, plan, sizes_of, steps
from edgemill.channels.prune import run
from edgemill.channels.reestimate import reestimate
from edgemill.channels.samples import Sampler
from edgemill.channels.scores import Scores
from edgemill.channels.surgery import remove
from edgemill.channels.trace import trace
from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import CheckpointError, InvariantError, RecipeError
from edgemill.ingest.count import count
from edgemill.ingest.export import keras_to_onnx
from edgemill.recipe import Augment, ChannelCost, Importance, Task
from edgemill.tf import fresh, keras
from edgemill.train.answers import Views, write
from edgemill.train.loop import Objective
from edgemill.train.teacher import Teacher
from tests.channels.graphs import build, randomize
from tests.train.digits import context, given, trained_teacher, write_digits

ROOT = Path(__file__).parents[2]
layers = keras.layers


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("channels")
    trained_teacher(folder)
    return folder


def load(path):
    return keras.models.load_model(path, compile=False)


def sampler_of(model, home, task=Task.CLASSIFICATION):
    teacher = Teacher(home / "teacher.onnx") if task is Task.UNLABELLED else None
    weight = 1.0 if task is Task.UNLABELLED else 0.0
    return Sampler(model, Dataset(home / "data"), Objective(task, teacher, 1.0, weight), 0)


def settings(**changes):
    values = {"task": Task.CLASSIFICATION, "epochs": 4, "rounds": 2, "batch_size": 32, "learning_rate": 0.003}
    return ChannelsSettings.model_validate(values | {"keep": 0.6, "multiple": 2} | changes)


def files(home):
    return {
        "keras": given(home / "teacher.keras", "keras"),
        "teacher": given(home / "teacher.onnx", "onnx"),
        "data": given(home / "data", "dataset"),
    }


def accuracy(model, data):
    x, y = data.features(SplitName.VALIDATION), data.labels(SplitName.VALIDATION)
    return float((model.predict(x, verbose=0).argmax(1) == y).mean())


@pytest.mark.parametrize("method", list(Importance))
@pytest.mark.parametrize("task", [Task.CLASSIFICATION, Task.UNLABELLED])
def test_every_importance_finds_the_channels_that_do_nothing(home, method, task):
    fresh(0)
    model = load(home / "teacher.keras")
    channels = find_groups(trace(model, (8, 8, 1)))
    (stem,) = (group for group in channels.groups if "stem" in group.layers)
    idle = stem.atoms[[2, 5, 11]]
    for cut in channels.cuts:
        if cut.attribute != "moving_variance" and np.isin(idle, cut.atoms).any():
            value = np.moveaxis(cut.variable.numpy(), cut.axis, 0)
            value[np.isin(cut.atoms, idle)] = 0
            cut.variable.assign(np.moveaxis(value, 0, cut.axis))
    found = scores(method, model, channels, sampler_of(model, home, task))
    assert set(stem.atoms[np.argsort(found.values[stem.atoms], kind="stable")[:3]]) == set(idle)
    assert found.values[idle].max() == 0
    assert found.relative == (method is not Importance.TAYLOR)
    expected = {"block_conv": method, "pointwise": Importance.L1 if method is Importance.BN_GAMMA else method}
    assert found.measured == expected


def test_taylor_of_small_channels_is_the_change_of_the_loss(home):
    """First order: exact in the limit of channels that hardly do anything."""
    model = load(home / "teacher.keras")
    channels = find_groups(trace(model, (8, 8, 1)))
    (group,) = (item for item in channels.groups if item.name == "pointwise")
    kernel = model.get_layer("answer").kernel
    kernel.assign(kernel * 0.01)
    sampler = sampler_of(model, home)
    found = scores(Importance.TAYLOR, model, channels, sampler)
    batches = list(sampler.small())

    def losses():
        return np.array([float(sampler.loss(model(x, training=False), y)) for x, y in batches])

    whole, kept = losses(), kernel.numpy()
    for index in range(0, 32, 8):
        value = kept.copy()
        value[index] = 0
        kernel.assign(value)
        measured = np.sqrt(np.mean((losses() - whole) ** 2))
        assert found.values[group.atoms[index]] == pytest.approx(measured, rel=0.05, abs=1e-6)


def test_taylor_does_not_vanish_without_labels_where_model_and_teacher_agree(home):
    model = load(home / "teacher.keras")
    channels = find_groups(trace(model, (8, 8, 1)))
    found = scores(Importance.TAYLOR, model, channels, sampler_of(model, home, Task.UNLABELLED))
    assert all(found.values[group.atoms].mean() > 1e-4 for group in channels.groups)


def test_the_least_important_for_their_cost_go_and_counts_are_multiples(home):
    model = load(home / "teacher.keras")
    channels = find_groups(trace(model, (8, 8, 1)))
    whole = Costs(channels, MacsCost()).total(sizes_of(channels))
    rng = np.random.default_rng(0)
    values = rng.uniform(0.5, 1, channels.book.atoms.count)
    wide = next(group for group in channels.groups if group.name == "pointwise")
    values[wide.atoms] *= 1e-6
    chosen = plan(channels, Scores(values, False, {}), MacsCost(), 0.97 * whole, 4)
    assert chosen.before == whole
    assert chosen.after <= 0.97 * whole
    gone = {group.name: int(chosen.gone[group.atoms].sum()) for group in channels.groups}
    assert gone["pointwise"] > 0
    assert gone["block_conv"] == 0
    assert all((len(group.atoms) - gone[group.name]) % 4 == 0 for group in channels.groups)
    least = values[wide.atoms[chosen.gone[wide.atoms]]].max()
    assert least <= values[wide.atoms[~chosen.gone[wide.atoms]]].min()


@pytest.mark.parametrize("cost", [MacsCost(), BytesCost()])
@pytest.mark.parametrize("multiple", [1, 4, 8])
@pytest.mark.parametrize("relative", [False, True])
def test_a_plan_costs_what_it_says_and_no_group_could_be_given_back(cost, multiple, relative):
    model = build(["chain", "concat", "squeeze_excite", "grouped", "depthwise"], "flatten", 4)
    channels = find_groups(trace(model, (8, 8, 3)))
    costs = Costs(channels, cost)
    whole = costs.total(sizes_of(channels))
    values = np.random.default_rng(1).uniform(size=channels.book.atoms.count)
    target = max(0.5 * whole, 1.1 * least_cost(channels, cost, multiple))
    chosen = plan(channels, Scores(values, relative, {}), cost, target, multiple)
    assert chosen.after <= target
    smaller = find_groups(trace(remove(model, channels, chosen.gone), (8, 8, 3)))
    assert Costs(smaller, cost).total(sizes_of(smaller)) == chosen.after
    assert [group.name for group in smaller.groups] == [group.name for group in channels.groups]
    sizes = [int((~chosen.gone[group.atoms]).sum()) for group in channels.groups]
    for index, group in enumerate(channels.groups):
        ladder = steps(group, multiple)
        place = ladder.index(sizes[index])
        if place:
            more = [ladder[place - 1] if i == index else size for i, size in enumerate(sizes)]
            assert costs.total(more) > target


def test_costs_count_what_the_graph_computes(tmp_path):
    model = build(["chain", "grouped", "separable", "transposed", "nested_twice", "gate_dense"], "wide", 2)
    channels = find_groups(trace(model, (8, 8, 3)))
    keras_to_onnx(model, tmp_path / "model.onnx")
    import onnx

    counted = count(onnx.load(str(tmp_path / "model.onnx")))
    assert Costs(channels, MacsCost()).total(sizes_of(channels)) == pytest.approx(counted.macs, rel=0.02)


def test_statistics_are_those_of_the_samples(home):
    fresh(0)
    image = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3)(layers.Dropout(0.5)(image))
    norm = layers.BatchNormalization(name="norm", trainable=False)
    model = keras.Model(image, layers.Dense(2)(layers.Flatten()(norm(x))))
    randomize(model, np.random.default_rng(0))
    batches = [np.random.default_rng(i).normal(2 * i, 1 + i, (50, 8, 8, 1)).astype(np.float32) for i in range(3)]
    assert reestimate(model, batches) == 1
    before = keras.Model(model.input, model.get_layer("norm").input)(np.concatenate(batches)).numpy()
    np.testing.assert_allclose(norm.moving_mean, before.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, before.var(axis=(0, 1, 2)), rtol=1e-3)


def test_new_statistics_bring_accuracy_back(home):
    fresh(0)
    model, data = load(home / "teacher.keras"), Dataset(home / "data")
    channels = find_groups(trace(model, (8, 8, 1)))
    sampler = sampler_of(model, home)
    found = scores(Importance.TAYLOR, model, channels, sampler)
    whole = Costs(channels, MacsCost()).total(sizes_of(channels))
    pruned = remove(model, channels, plan(channels, found, MacsCost(), 0.7 * whole, 1).gone)
    damaged = accuracy(pruned, data)
    assert reestimate(pruned, sampler.large()) == 2
    assert accuracy(pruned, data) > damaged + 0.05


@pytest.fixture(scope="module")
def pruned(home, tmp_path_factory):
    return run(settings(), files(home), context(tmp_path_factory.mktemp("pruned")))


def test_the_step_prunes_in_rounds_and_both_files_agree(home, pruned):
    facts, data = pruned.facts, Dataset(home / "data")
    model = load(pruned.files["keras"].path)
    x = data.features(SplitName.VALIDATION)
    answer = model.predict(x, verbose=0)
    session = ort.InferenceSession(pruned.files["onnx"].path)
    np.testing.assert_allclose(session.run(None, {session.get_inputs()[0].name: x})[0], answer, atol=1e-4)
    assert facts["score"] == pytest.approx(accuracy(model, data))
    assert facts["score"] > 0.85
    assert facts["score_before"] > 0.9
    assert facts["cost"]["after"] <= 0.6 * facts["cost"]["before"]
    assert (facts["macs_before"], facts["macs"]) == (facts["cost"]["before"], facts["cost"]["after"])
    assert facts["parameters"] == model.count_params() < facts["parameters_before"]
    assert facts["bytes"] < facts["bytes_before"]
    for group in facts["groups"]:
        assert group["after"] % 2 == 0
        assert all(model.get_layer(name).filters == group["after"] for name in group["layers"])
    assert [entry["name"] for entry in facts["left_whole"]] == ["answer"]
    history = facts["history"]
    assert [entry["epochs"] for entry in history] == [1, 3]
    assert history[0]["cost"] > history[1]["cost"]
    assert history[-1]["cost"] == facts["cost"]["after"]
    assert history[0]["score_reestimated"] > history[0]["score_removed"]
    assert json.loads(json.dumps(facts)) == facts


def test_the_same_again_gives_the_same_bytes_and_finished_rounds_are_not_repeated(home, pruned, tmp_path):
    place = context(tmp_path)
    again = run(settings(), files(home), place)
    for name in ("keras", "onnx"):
        assert again.files[name].path.read_bytes() == pruned.files[name].path.read_bytes()
    for path in place.out.iterdir():
        path.unlink()
    place.report.messages.clear()
    third = run(settings(), files(home), place)
    assert not [text for _, text in place.report.messages if "epoch" in text]
    assert third.files["keras"].path.read_bytes() == pruned.files["keras"].path.read_bytes()
    for path in place.out.iterdir():
        path.unlink()
    run(settings(importance=Importance.L1, epochs=1), files(home), place)
    assert [text for _, text in place.report.messages if "epoch" in text]


def test_a_run_killed_between_rounds_goes_on_to_the_same_bytes(home, pruned, tmp_path):
    script = (
        "import sys\nfrom pathlib import Path\nfrom edgemill.channels.prune import run\n"
        "from tests.channels.test_plan import files, settings\nfrom tests.train.digits import context\n"
        "run(settings(), files(Path(sys.argv[1])), context(Path(sys.argv[2])))\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(home), str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    finished = tmp_path / "resume" / "round_0.json"
    while not finished.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    place = context(tmp_path)
    for path in place.out.iterdir():
        path.unlink()
    outputs = run(settings(), files(home), place)
    assert outputs.files["keras"].path.read_bytes() == pruned.files["keras"].path.read_bytes()
    assert not any("round 1/2" in text for _, text in place.report.messages)
    assert any("round 2/2" in text for _, text in place.report.messages)


def test_an_unlabelled_task_follows_the_teacher(home, tmp_path):
    (tmp_path / "teacher.keras").symlink_to(home / "teacher.keras")
    (tmp_path / "teacher.onnx").symlink_to(home / "teacher.onnx")
    write_digits(tmp_path / "data", labelled=False)
    outputs = run(
        settings(task=Task.UNLABELLED, epochs=2, rounds=1, keep=0.8), files(tmp_path), context(tmp_path / "work")
    )
    assert outputs.facts["score_before"] == 1.0
    assert outputs.facts["score"] > 0.85


def stairs(inputs, outputs):
    """Microseconds of a layer whose kernels compute 8 output channels together."""
    return 1.0 + 0.02 * inputs * -(-outputs // 8)


def test_measured_latency_is_a_cost(home, tmp_path):
    model = load(home / "teacher.keras")
    grids = measuring_plan(named.shape for named in layer_shapes(model))
    measured = []
    for grid in grids:
        us = np.array([stairs(before, after) for before, after in grid.points()])
        us = us.reshape(len(grid.inputs), max(1, len(grid.outputs)))
        measured.append(Measured(grid, us, np.zeros_like(us)))
    LatencyTable(measured, "simulated 1.0", 2.0).write(tmp_path / "table.json")
    inputs = files(home) | {"latency": given(tmp_path / "table.json", "latency_table")}
    outputs = run(
        settings(cost=ChannelCost.LATENCY, keep=0.8, epochs=1, multiple=4), inputs, context(tmp_path / "work")
    )
    cost = outputs.facts["cost"]
    assert cost["unit"] == "us"
    assert cost["after"] <= 0.8 * cost["before"]
    names = [use.layer.name for use in find_groups(trace(model, (8, 8, 1))).uses]
    assert names == ["stem", "block_conv", "depthwise", "pointwise", "answer"]
    before = stairs(1, 16) + stairs(16, 16) * 2 + stairs(16, 32) + stairs(32, 10)
    assert cost["before"] == pytest.approx(before)


def test_known_answers_of_the_teacher_are_used(home, tmp_path):
    (tmp_path / "answers").mkdir()
    teacher, data = Teacher(home / "teacher.onnx"), Dataset(home / "data")
    views = Views(data, Augment(shift=1, views=2), 0)
    write(tmp_path / "answers", views, teacher, True, data.sizes[SplitName.TRAIN], lambda share: None)
    inputs = files(home) | {"answers": given(tmp_path / "answers", "answers")}
    with pytest.raises(InvariantError, match="to other samples"):
        run(settings(epochs=1), inputs, context(tmp_path / "a"))
    same = settings(epochs=1, augment=Augment(shift=1, views=2))
    assert run(same, inputs, context(tmp_path / "b")).facts["score"] > 0.5


def test_what_cannot_be_reached_is_refused_before_training(home, tmp_path):
    place = context(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be brought to so little") as caught:
        run(settings(keep=0.01), files(home), place)
    assert "raise keep" in str(caught.value)
    assert "answer: they are the model's answer" in str(caught.value)
    with pytest.raises(RecipeError, match="latency table"):
        run(settings(cost=ChannelCost.LATENCY), files(home), place)
    assert place.report.messages == []


def test_a_model_without_channels_to_remove_is_refused(home, tmp_path):
    fresh(0)
    image = keras.Input((8, 8, 1))
    x = layers.LayerNormalization(name="norm")(layers.Conv2D(8, 3, name="conv")(image))
    model = keras.Model(image, layers.Dense(10, name="head")(layers.GlobalAveragePooling2D()(x)))
    model.save(tmp_path / "teacher.keras")
    keras_to_onnx(model, tmp_path / "teacher.onnx")
    (tmp_path / "data").symlink_to(home / "data")
    with pytest.raises(CheckpointError, match="no channels that can be removed") as caught:
        run(settings(), files(tmp_path), context(tmp_path / "work"))
    assert "conv: norm (LayerNormalization) takes its statistics across them" in str(caught.value)
