"""Per-sample scores and faults of predictions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgemill.errors import DataError
from edgemill.recipe import Task
from edgemill.validate.faults import Fault, find_fault
from edgemill.validate.scores import (
    answers_of,
    binary_threshold,
    class_like,
    flip_rate,
    score_samples,
)

LABELS = np.array([0, 1, 2, 1])
PROBABILITIES = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.3, 0.4, 0.3], [0.1, 0.8, 0.1]], np.float32)


def test_classification_is_argmax():
    assert score_samples(Task.CLASSIFICATION, PROBABILITIES, LABELS).tolist() == [1, 1, 0, 1]


def test_singleton_dimensions_do_not_matter():
    deep = PROBABILITIES[:, None, None, :]
    assert score_samples(Task.CLASSIFICATION, deep, LABELS[:, None]).tolist() == [1, 1, 0, 1]


@pytest.mark.parametrize(
    ("outputs", "expected"), [([0.1, 0.4, 0.6, 0.99], [1, 0, 1, 1]), ([-3.0, 2.0, 0.2, 5.0], [1, 1, 1, 1])]
)
def test_single_output_is_a_binary_classifier(outputs, expected):
    column = np.array(outputs, np.float32)[:, None]
    assert score_samples(Task.CLASSIFICATION, column, np.array([0, 1, 1, 1])).tolist() == expected


def test_threshold_comes_from_the_baseline():
    logits = np.array([[-3.0], [4.0], [2.0]], np.float32)
    variant = np.array([[0.1], [0.9], [0.3]], np.float32)
    scores = score_samples(Task.CLASSIFICATION, variant, np.array([0, 1, 1]), logits)
    assert scores.tolist() == [0, 1, 1]
    assert binary_threshold(logits) == 0


def test_quantized_softmax_still_counts_as_probabilities():
    assert class_like(np.round(PROBABILITIES * 255) / 256)
    assert not class_like(PROBABILITIES * 3)
    assert not class_like(np.zeros((0, 3), np.float32) - 1)


def test_regression_is_minus_the_mean_absolute_error():
    outputs = np.array([[1.0, 2.0], [0.0, 0.0]], np.float32)
    assert score_samples(Task.REGRESSION, outputs, np.array([[1.0, 3.0], [0.5, -0.5]])).tolist() == [-0.5, -0.5]


@pytest.mark.parametrize(
    ("task", "outputs", "labels"),
    [
        (Task.CLASSIFICATION, PROBABILITIES, np.array([0, 1, 2, 3])),
        (Task.CLASSIFICATION, PROBABILITIES, np.array([0, 1, -1, 1])),
        (Task.CLASSIFICATION, PROBABILITIES, LABELS[:3]),
        (Task.CLASSIFICATION, PROBABILITIES, LABELS.astype(np.float32)),
        (Task.CLASSIFICATION, PROBABILITIES, None),
        (Task.REGRESSION, PROBABILITIES, np.zeros((4, 2))),
    ],
)
def test_labels_that_do_not_fit(task, outputs, labels):
    with pytest.raises(DataError):
        score_samples(task, outputs, labels)


def test_unlabelled_agreement_by_class_and_by_distance():
    flipped = PROBABILITIES.copy()
    flipped[0] = [0.4, 0.5, 0.1]
    assert score_samples(Task.UNLABELLED, flipped, None, PROBABILITIES).tolist() == [0, 1, 1, 1]
    signal = np.array([[3.0, 4.0], [30.0, 40.0], [0.0, 0.0]], np.float32)
    near = signal + np.array([[0.3, 0.3], [3.0, 5.0], [0.0, 0.0]], np.float32)
    assert score_samples(Task.UNLABELLED, near, None, signal).tolist() == [1, 0, 1]


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 20), st.integers(1, 4)), elements=st.floats(-100, 100, width=32))
)
def test_a_model_agrees_with_itself(outputs):
    assert score_samples(Task.UNLABELLED, outputs, None, outputs).all()
    assert flip_rate(Task.CLASSIFICATION, outputs, outputs) == 0
    assert find_fault(outputs, outputs, Task.CLASSIFICATION) is None


def test_flip_rate_counts_right_and_wrong():
    other = PROBABILITIES[:, [1, 0, 2]]
    assert flip_rate(Task.CLASSIFICATION, other, PROBABILITIES) == 1.0


def many(n: int = 60) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.dirichlet([1, 1, 1], n).astype(np.float32)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_non_finite_is_named_with_counts(poison):
    outputs = many()
    outputs[3, 1] = outputs[9, 0] = poison
    broken = find_fault(outputs, many(), Task.CLASSIFICATION)
    assert broken.fault is Fault.NON_FINITE
    assert "2 NaN or infinite" in broken.text
    assert "2 of 60" in broken.text


def test_constant_outputs_and_collapse_to_one_class():
    assert find_fault(np.repeat(many()[:1], 60, axis=0), many(), Task.REGRESSION).fault is Fault.CONSTANT
    collapsed = many() * 0.1
    collapsed[:, 2] += 0.9
    broken = find_fault(collapsed, many(), Task.CLASSIFICATION)
    assert broken.fault is Fault.CONSTANT
    assert "class 2" in broken.text


def test_a_constant_baseline_excuses_a_constant_variant():
    flat = np.repeat(many()[:1], 60, axis=0)
    assert find_fault(flat, flat, Task.CLASSIFICATION) is None


def test_a_rare_class_that_is_missed_is_no_collapse():
    baseline = np.tile(np.array([[0.9, 0.1]], np.float32), (60, 1)) - np.linspace(0, 0.01, 60)[:, None].astype(
        np.float32
    )
    variant = baseline.copy()
    baseline[:2] = [0.1, 0.9]
    assert find_fault(variant, baseline, Task.CLASSIFICATION) is None


@pytest.mark.parametrize("shape", [(60, 4), (59, 3), (60,)])
def test_wrong_shape(shape):
    assert find_fault(np.zeros(shape, np.float32), many(), Task.CLASSIFICATION).fault is Fault.WRONG_SHAPE


def test_ties_go_to_the_first_class():
    assert answers_of(np.array([[0.5, 0.5]])).tolist() == [0]
