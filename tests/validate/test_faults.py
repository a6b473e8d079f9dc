"""Named faults: what converters, glue code and data leave behind, and what must not be taken for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from edgemill.recipe import Task
from edgemill.validate.faults import Fault, absent_classes, find_fault, find_label_fault


def probabilities(n: int = 400, classes: int = 6, seed: int = 0, sharp: float = 3.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return special.softmax(sharp * rng.normal(size=(n, classes)), axis=1).astype(np.float32)


def noisy(outputs: np.ndarray, noise: float = 0.3, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    logits = np.log(outputs + 1e-9) + noise * rng.normal(size=outputs.shape)
    return special.softmax(logits, axis=1).astype(np.float32)


@pytest.mark.parametrize("order", [[1, 2, 3, 4, 5, 0], [5, 4, 3, 2, 1, 0], [0, 1, 3, 2, 4, 5], [0, 2, 1, 4, 3, 5]])
@pytest.mark.parametrize("task", [Task.CLASSIFICATION, Task.UNLABELLED])
def test_another_order_of_the_classes_is_named_with_the_classes(order, task):
    baseline = probabilities()
    broken = find_fault(noisy(baseline)[:, order], baseline, task)
    assert broken.fault is Fault.CLASS_ORDER
    moved = [usual for usual in range(6) if order[usual] != usual]
    for usual in moved:
        assert f"{usual} comes out as {order.index(usual)}" in broken.text
    assert "reordered" in broken.reason


def test_a_binary_classifier_the_wrong_way_round():
    baseline = probabilities(classes=2)
    assert find_fault(noisy(baseline)[:, ::-1], baseline, Task.CLASSIFICATION).fault is Fault.CLASS_ORDER
    single = baseline[:, 1:]
    assert find_fault(1 - single, single, Task.CLASSIFICATION).fault is Fault.CLASS_ORDER


@given(st.integers(0, 200), st.integers(2, 12), st.floats(0, 6), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_noise_and_confusion_are_no_change_of_order(n, classes, noise, seed):
    baseline = probabilities(n, classes, seed)
    broken = find_fault(noisy(baseline, noise, seed + 1), baseline, Task.CLASSIFICATION)
    assert broken is None or broken.fault is Fault.CONSTANT


def test_a_class_that_is_mistaken_for_its_neighbour_is_a_loss_and_no_order():
    baseline = np.eye(4, dtype=np.float32)[np.arange(400) % 4]
    answers = np.arange(400) % 4
    variant = np.eye(4, dtype=np.float32)[np.where(answers == 2, 3, answers)]
    assert find_fault(variant, baseline, Task.CLASSIFICATION) is None


def test_integers_of_a_quantized_output():
    baseline = probabilities()
    raw = np.round(noisy(baseline, 0.1) * 256 - 128).clip(-128, 127).astype(np.float32)
    for task in Task:
        broken = find_fault(raw, baseline, task)
        assert broken.fault is Fault.NOT_DEQUANTIZED
        assert "scale and zero point of the model's output" in broken.text
    right = (raw + 128) / 256
    assert find_fault(right, baseline, Task.CLASSIFICATION) is None


def test_whole_numbers_can_be_right():
    values = np.random.default_rng(2).integers(-40, 40, (300, 1)).astype(np.float32)
    assert find_fault(values + 1, values, Task.REGRESSION) is None  # whole in both
    hard = np.eye(6, dtype=np.float32)[probabilities().argmax(1)]
    assert find_fault(hard, probabilities(), Task.CLASSIFICATION) is None
    rounded = np.round(values + 0.3)
    assert find_fault(rounded, values + 0.3, Task.REGRESSION) is None  # of the same scale


@pytest.mark.parametrize(("scale", "offset"), [(0.05, 0.0), (20.0, 0.0), (1.0, 5.0), (-1.0, 0.0)])
def test_a_left_out_scale_is_named_for_real_values(scale, offset):
    values = np.random.default_rng(3).normal(size=(300, 2)).astype(np.float32)
    broken = find_fault(scale * values + offset, values, Task.REGRESSION)
    if scale < 0:
        assert broken is None  # no zero point turns signs round
        return
    assert broken.fault is Fault.RESCALED
    assert f"{scale:.4g} times" in broken.text


def test_scores_may_have_any_scale_where_only_their_order_counts():
    logits = np.random.default_rng(4).normal(size=(300, 5)).astype(np.float32)
    assert find_fault(0.4 * logits, logits, Task.CLASSIFICATION) is None
    assert find_fault(0.4 * logits[:, :1] + 1, logits[:, :1], Task.ANOMALY) is None
    assert find_fault(0.4 * logits, logits, Task.ANOMALY).fault is Fault.RESCALED  # a reconstruction


def test_ordinary_quantization_noise_is_no_fault():
    rng = np.random.default_rng(5)
    values = rng.normal(size=(500, 3)).astype(np.float32)
    for noise in (0, 1e-3, 0.05, 0.5, 3):
        assert find_fault(values + noise * rng.normal(size=values.shape), values, Task.REGRESSION) is None


def test_a_collapsed_model_hints_at_an_input_that_never_arrived():
    baseline = probabilities()
    for variant in (np.repeat(baseline[:1], 400, axis=0), baseline * 0.01 + np.eye(6, dtype=np.float32)[2] * 0.99):
        broken = find_fault(variant, baseline, Task.CLASSIFICATION)
        assert broken.fault is Fault.CONSTANT
        assert "int8 input without its scale and zero point" in broken.text


@pytest.mark.parametrize(
    ("labels", "task", "fault", "text"),
    [
        (np.array([0, 1, -1, 2]), Task.CLASSIFICATION, Fault.LABELS_MISSING, "1 of 4 samples"),
        (np.array([0, 1, 3, 9]), Task.CLASSIFICATION, Fault.LABEL_OUT_OF_RANGE, "2 labels are not in 0..2"),
        (np.array([0.0, 1.0, np.nan, 2.0]), Task.REGRESSION, Fault.LABELS_MISSING, "sample 2"),
        (np.array([0, 1, 2, 1]), Task.ANOMALY, Fault.LABEL_OUT_OF_RANGE, "not in 0..1"),
        (np.array([0, 0, 0, 0]), Task.ANOMALY, Fault.CLASS_WITHOUT_SAMPLES, "no anomalous sample"),
        (np.array([1, 1, 1, 1]), Task.ANOMALY, Fault.CLASS_WITHOUT_SAMPLES, "no normal sample"),
    ],
)
def test_labels_that_cannot_be_judged_by(labels, task, fault, text):
    broken = find_label_fault(labels, np.zeros((4, 3), np.float32), task)
    assert broken.fault is fault
    assert text in broken.reason


def test_labels_that_are_fine():
    outputs = np.zeros((4, 3), np.float32)
    assert find_label_fault(np.array([0, 1, 2, 2]), outputs, Task.CLASSIFICATION) is None
    assert find_label_fault(np.array([-5.0, 1, 2, 2]), outputs[:, :1], Task.REGRESSION) is None
    assert find_label_fault(None, outputs, Task.UNLABELLED) is None
    assert find_label_fault(np.zeros(0, int), outputs[:0], Task.CLASSIFICATION) is None
    assert absent_classes(np.array([0, 1, 2]), outputs) is None
    assert "2 of 3 classes (0, 1)" in absent_classes(np.array([2, 2]), outputs).text


@given(
    st.sampled_from(list(Task)), st.integers(0, 50), st.integers(1, 5), st.integers(0, 999),
    st.sampled_from([0.0, 1e-38, 1.0, 1e37]),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_any_finite_outputs_can_be_looked_at(task, n, width, seed, scale):
    rng = np.random.default_rng(seed)
    baseline, variant = (np.round(rng.normal(size=(n, width)), 1).astype(np.float32) * np.float32(scale) for _ in "ab")
    assert find_fault(baseline, baseline, task) is None
    find_fault(variant, baseline, task)
