import pytest

from edgemill.artifact import Signature, TensorSpec
from edgemill.compile.c_generate import c_type, compact, prototype
from edgemill.errors import ToolchainError

NUMBERS = ", ".join(str(number) for number in range(200))
TEXT = f"""\
/* one two */
const int8_t weights[1][200] = {{
    {{
        {NUMBERS}
    }}
}};

int  f(int a) {{
    return a;
}}
"""


def test_constants_are_shorter_and_everything_else_is_as_it_was():
    short = compact(TEXT)
    assert "".join(short.split()) == "".join(TEXT.split())
    assert len(short) < len(TEXT) - 190
    assert max(map(len, short.splitlines())) <= 130
    assert "int  f(int a) {\n    return a;\n}\n" in short


def test_the_declaration_names_every_size_and_one_sample_where_the_batch_is_free():
    entry = TensorSpec(name="input:0", dtype="int8", shape=(None, 28, 28), scale=0.5, zero_point=3)
    answer = TensorSpec(name="a b", dtype="float32", shape=(None, 10))
    declared = prototype(Signature(inputs=(entry,), outputs=(answer,)))
    assert declared == "void model(const int8_t input0[1][28][28], float output0[1][10])"


def test_a_type_that_c_lacks_is_named_with_its_tensor():
    with pytest.raises(ToolchainError, match="C has no type") as caught:
        c_type(TensorSpec(name="input", dtype="float16", shape=(1, 2)))
    assert (caught.value.where, caught.value.got) == ("input", "float16")
