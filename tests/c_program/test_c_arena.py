import itertools

import numpy as np
import pytest

from edgemill.compile.c_arena import Tensor, plan, share

GENERATED = """\
static void node0(const float a[4], float b[4]) {
    (void)a;
}

void model(const float input[restrict 4], float output[restrict 4]) {
    float tmp0[2][2];
    int8_t tmp1[4];
    float tmp2[2][2];
    float tmp3[4];
    node0(input, tmp0);
    node1(tmp0, tmp1);
    node2(tmp1, tmp2);
    node3(tmp2, tmp3);
    node4(tmp3, output);
}
"""


def overlap(one, other, places):
    together = one.first <= other.last and other.first <= one.last
    apart = places[one.name] + one.size <= places[other.name] or places[other.name] + other.size <= places[one.name]
    return together and not apart


@pytest.mark.parametrize("seed", range(20))
def test_tensors_that_are_needed_together_never_share_a_place(seed):
    rng = np.random.default_rng(seed)
    tensors = []
    for index in range(30):
        first = int(rng.integers(0, 40))
        tensors.append(
            Tensor(f"t{index}", "float", (int(rng.integers(1, 50)),), first, first + int(rng.integers(0, 6)))
        )
    places, size = plan(tensors)
    assert not any(overlap(one, other, places) for one, other in itertools.combinations(tensors, 2))
    assert size == max(places[tensor.name] + tensor.size for tensor in tensors)
    alive = max(sum(t.size for t in tensors if t.first <= now <= t.last) for now in range(50))
    assert alive <= size < sum(tensor.size for tensor in tensors)


def test_arrays_become_parts_of_one_array_an_element_type():
    text = share(GENERATED, "model")
    assert "float arena_float[8];" in text
    assert "int8_t arena_int8_t[4];" in text
    assert "float (*const tmp0)[2] = (float (*)[2])(arena_float + 0);" in text
    assert "    float *const tmp3 = arena_float + " in text
    assert text.count("node") == GENERATED.count("node")


@pytest.mark.parametrize("line", ["    for (int i = 0; i < 2; ++i) {", "    float *tmp9 = malloc(4);"])
def test_a_body_of_another_kind_is_left_as_it_is(line):
    text = GENERATED.replace("    node2(", f"{line}\n    node2(")
    assert share(text, "model") == text


def test_a_file_without_the_function_is_left_as_it_is():
    assert share(GENERATED, "other") == GENERATED
