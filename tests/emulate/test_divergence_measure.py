"""Comparison of the answers of two machines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from edgemill.errors import ToolchainError
from edgemill.validate.divergence import Closeness, Divergence, Layer, render
from edgemill.validate.divergence_measure import measure, ulp_distance

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(FLOATS, st.integers(0, 200))
def test_ulp_counts_steps_between_floats(start, steps):
    value = np.float32(start)
    for _ in range(steps):
        value = np.nextafter(value, np.float32(np.inf), dtype=np.float32)
    a, b = np.array([start], np.float32), np.array([value], np.float32)
    assert ulp_distance(a, b)[0] == steps
    assert ulp_distance(b, a)[0] == steps


def test_ulp_across_zero_and_in_half_precision():
    smallest = np.float32(1e-45)
    assert ulp_distance(np.array([-smallest]), np.array([smallest]))[0] == 2
    assert ulp_distance(np.float32([-0.0]), np.float32([0.0]))[0] == 0
    assert ulp_distance(np.float16([1.0]), np.nextafter(np.float16([1.0]), np.float16(2)))[0] == 1


@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=4, max_side=5), elements=st.floats(width=32)))
def test_an_array_equals_itself_whatever_is_in_it(values):
    found = measure(values, values.copy(), "test")
    assert found.closeness is Closeness.EQUAL
    assert (found.max_abs, found.not_finite, found.equal_rows) == (0, 0, 1)


@given(
    arrays(np.float32, (4, 3), elements=st.floats(-100, 100, width=32)),
    arrays(np.float32, (4, 3), elements=st.floats(-100, 100, width=32)),
)
def test_figures_agree_with_their_definitions(a, b):
    found = measure(a, b, "test")
    assert found.max_abs == np.abs(a.astype(np.float64) - b.astype(np.float64)).max()
    assert found.agreement == (a.argmax(1) == b.argmax(1)).mean()
    assert found.max_ulp == measure(b, a, "test").max_ulp
    assert (found.closeness is Closeness.EQUAL) == (found.equal_rows == 1.0)


def test_rounding_is_told_from_parting():
    exact = np.array([[0.0, 10.0], [5.0, 1.0]], np.float32)
    assert measure(exact, exact + np.float32(1e-4), "test").closeness is Closeness.ROUNDING
    assert measure(exact, exact + np.float32(0.01), "test").closeness is Closeness.PARTED
    close_call = np.array([[1.0, 1.00001], [0.0, 10.0]], np.float32)
    other = close_call.copy()
    other[0] = other[0, ::-1]
    assert measure(close_call, other, "test").closeness is Closeness.PARTED  # another answer is never rounding
    steps = np.array([[0, 200]], np.uint8)
    assert measure(steps, steps + np.uint8(1), "test").closeness is Closeness.PARTED  # integers do not round


def test_values_that_are_finite_on_one_side_only_are_counted():
    a = np.array([[1.0, np.nan], [np.inf, 2.0]], np.float32)
    b = np.array([[1.0, 3.0], [np.inf, -np.inf]], np.float32)
    found = measure(a, b, "test")
    assert found.not_finite == 2
    assert found.closeness is Closeness.PARTED
    assert np.isfinite(found.max_abs)


@pytest.mark.parametrize("other", [np.zeros((2, 4), np.float32), np.zeros((2, 3), np.float64)])
def test_other_shapes_and_types_are_refused(other):
    with pytest.raises(ToolchainError, match="different shapes"):
        measure(np.zeros((2, 3), np.float32), other, "test")


def test_text_names_the_layer_and_the_reason():
    parted = measure(np.array([[0, 200]], np.uint8), np.array([[0, 104]], np.uint8), "test")
    found = Divergence(
        reference="x86_64 avx512_vnni",
        target="qemu-x86_64 7.2, Haswell",
        source="emulated:qemu-x86_64",
        samples=1,
        output=parted,
        first=Layer(tensor="relu", operator="QLinearConv", index=2, dtype="uint8", difference=parted),
        traced=19,
        faithful=True,
        note="this CPU has avx512_vnni, which the target lacks",
    )
    text = render(found)
    assert "QLinearConv relu (tensor 3 of 19, uint8): up to 96" in text
    assert "which the target lacks" in text
    assert not found.close
    assert Divergence.model_validate_json(found.model_dump_json()) == found
