"""Which channels go together, and that removing those that are zero changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from edgemill.channels.book import Role
from edgemill.channels.groups import find_groups
from edgemill.channels.surgery import remove
from edgemill.channels.trace import trace
from edgemill.errors import CheckpointError
from edgemill.tf import fresh, keras, tf
from tests.channels.graphs import BLOCKS, HEADS, SHAPE, build, plans, randomize

layers = keras.layers


def channels_of(model, shape=None):
    return find_groups(trace(model, shape or tuple(model.input_shape[1:])))


def some(channels, rng, share=0.5):
    """Random atoms of every group, never all of one."""
    gone = np.zeros(channels.book.atoms.count, bool)
    for group in channels.groups:
        count = min(int(rng.binomial(len(group.atoms), share)), len(group.atoms) - 1)
        gone[rng.choice(group.atoms, count, replace=False)] = True
    return gone


def silence(channels, gone):
    """Set to zero all that writes or shifts channels; what reads them stays as it is."""
    for cut in channels.cuts:
        if cut.role is Role.READS or cut.attribute == "moving_variance":
            continue
        value = np.moveaxis(cut.variable.numpy(), cut.axis, 0)
        value[gone[cut.atoms]] = 0
        cut.variable.assign(np.moveaxis(value, 0, cut.axis))


def assert_equal_without_zeros(model, seed, shape=SHAPE, dtype=np.float32):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3, *shape)).astype(dtype)
    channels = channels_of(model, shape)
    gone = some(channels, rng)
    silence(channels, gone)
    before = model(x, training=False).numpy()
    smaller = remove(model, channels, gone)
    scale = max(1.0, float(np.abs(before).max()))
    np.testing.assert_allclose(smaller(x, training=False).numpy() / scale, before / scale, rtol=0, atol=1e-6)
    assert (smaller.count_params() < model.count_params()) == bool(gone.any())
    return channels, smaller


# A graph takes a second to build: a failing one is shown as it is.
@given(plans)
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
def test_channels_that_are_zero_can_go_from_any_graph(plan):
    blocks, head, seed = plan
    # In float32 a normalization behind another can make 1e-6 of a rounding error.
    keras.backend.set_floatx("float64")
    try:
        assert_equal_without_zeros(build(blocks, head, seed), seed, dtype=np.float64)
    finally:
        keras.backend.set_floatx("float32")


@pytest.mark.parametrize("block", BLOCKS)
def test_every_coupling(block):
    assert_equal_without_zeros(build([block, "conv"], "pool", 1), 2)


@pytest.mark.parametrize("head", HEADS)
def test_every_head(head):
    channels, _ = assert_equal_without_zeros(build(["conv"], head, 1), 2)
    assert channels.groups


def test_removing_channels_is_zeroing_what_reads_them():
    """What importance by Taylor rests on: for channels that are not zero."""
    model = build(["chain", "squeeze_excite", "concat", "depthwise", "nested"], "flatten", 3)
    channels = channels_of(model)
    gone = some(channels, np.random.default_rng(0))
    smaller = remove(model, channels, gone)
    x = np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float32)
    whole = model(x).numpy()
    for cut in channels.cuts:
        if cut.role is Role.READS:
            value = np.moveaxis(cut.variable.numpy(), cut.axis, 0)
            value[gone[cut.atoms]] = 0
            cut.variable.assign(np.moveaxis(value, 0, cut.axis))
    answer = smaller(x).numpy()
    np.testing.assert_allclose(answer, model(x).numpy(), atol=1e-5)
    assert np.abs(answer - whole).max() > 1e-2


def groups(model, **options):
    return {group.name: group for group in channels_of(model, **options).groups}


def whole(model):
    return {group.name: group.reason for group in channels_of(model).whole}


def test_a_residual_chain_is_one_group_and_its_inner_layers_are_free():
    fresh(0)
    image = keras.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, padding="same", name="stem")(image)
    for i in range(3):
        y = layers.Conv2D(12, 3, padding="same", activation="relu", name=f"in{i}")(x)
        x = layers.Add()([x, layers.Conv2D(8, 3, padding="same", name=f"out{i}")(y)])
    model = keras.Model(image, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D()(x)))
    found = groups(model)
    assert found["out0"].layers == ("out0", "out1", "out2", "stem")
    assert found["out0"].readers == ("head", "in0", "in1", "in2")
    assert {name: group.channels for name, group in found.items()} == {"out0": 8, "in0": 12, "in1": 12, "in2": 12}
    assert whole(model) == {"head": "they are the model's answer"}


def test_concatenated_branches_are_groups_of_their_own():
    fresh(0)
    image = keras.Input((8, 8, 1))
    a, b = layers.Conv2D(4, 3, name="a")(image), layers.Conv2D(8, 3, name="b")(image)
    joined = layers.Concatenate()([a, b])
    both = layers.Add()([joined, layers.Conv2D(12, 3, name="both")(image)])
    found = groups(keras.Model(image, layers.Dense(2)(layers.Flatten()(both))))
    assert {name: (group.layers, group.channels) for name, group in found.items()} == {
        "a": (("a", "both"), 4),
        "b": (("b", "both"), 8),
    }


def test_grouped_channels_go_as_whole_groups():
    fresh(0)
    image = keras.Input((8, 8, 1))
    x = layers.GroupNormalization(4)(layers.Conv2D(16, 3, name="normalized")(image))
    x = layers.Conv2D(16, 3, name="before")(x)
    x = layers.Conv2D(32, 3, groups=8, name="grouped")(x)
    model = keras.Model(image, layers.Dense(2)(layers.GlobalMaxPooling2D()(x)))
    channels = channels_of(model)
    found = {group.name: group for group in channels.groups}
    assert (len(found["normalized"].atoms), found["normalized"].unit) == (4, 4)
    assert (len(found["before"].atoms), found["before"].unit) == (8, 2)
    assert found["before"].layers == ("before", "grouped")
    gone = np.zeros(channels.book.atoms.count, bool)
    gone[found["before"].atoms[:3]] = gone[found["normalized"].atoms[1]] = True
    smaller = remove(model, channels, gone)
    assert smaller.get_layer("grouped").get_config()["groups"] == 5
    assert smaller.get_layer("grouped").kernel.shape == (3, 3, 2, 20)
    assert smaller.get_layer("before").kernel.shape == (3, 3, 12, 10)


def test_flatten_gives_each_channel_several_inputs_and_reshape_ties_units():
    fresh(0)
    model = keras.Sequential(
        [
            layers.Input((6, 6, 1)),
            layers.Conv2D(8, 3, name="conv"),
            layers.Flatten(),
            layers.Dense(4 * 4 * 12, name="dense"),
            layers.Reshape((4, 4, 12), name="reshape"),
            layers.Conv2D(5, 3, name="last"),
        ]
    )
    channels = channels_of(model)
    found = {group.name: group for group in channels.groups}
    assert (len(found["conv"].atoms), len(found["dense"].atoms), found["dense"].unit) == (8, 12, 16)
    gone = np.zeros(channels.book.atoms.count, bool)
    gone[found["conv"].atoms[2]] = gone[found["dense"].atoms[:5]] = True
    smaller = remove(model, channels, gone)
    assert smaller.get_layer("dense").kernel.shape == (16 * 7, 16 * 7)
    assert smaller.get_layer("reshape").target_shape == (4, 4, 7)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (layers.Lambda(tf.nn.relu, name="own"), "layers like own (Lambda) are not followed"),
        (layers.LayerNormalization(name="norm"), "norm (LayerNormalization) takes its statistics across them"),
        (layers.Softmax(name="soft"), "soft (Softmax) sums over them"),
        (layers.Activation(lambda x: x - tf.reduce_mean(x), name="odd"), "the activation <lambda> of odd"),
        (layers.Permute((3, 1, 2), name="turned"), "turned_mixed (Conv2D) works across them"),
        (layers.Rescaling([0.5] * 8, name="scaled"), "scaled (Rescaling) has a factor for each"),
    ],
)
def test_what_cannot_be_followed_is_left_whole_with_the_reason(layer, why):
    fresh(0)
    image = keras.Input((5, 4, 1))
    x = layer(layers.Conv2D(8, 3, name="before")(image))
    x = layers.Conv2D(6, 1, name=f"{layer.name}_mixed")(x)
    x = layers.Conv2D(6, 1, name="free")(x)
    model = keras.Model(image, layers.Dense(2, name="head")(layers.Flatten()(x)))
    randomize(model, np.random.default_rng(0))
    assert whole(model)["before"].startswith(why)
    assert "free" in groups(model)
    assert_equal_without_zeros(model, 0, (5, 4, 1))


def test_a_reshape_that_mixes_positions_and_channels_ties_what_meets():
    fresh(0)
    image = keras.Input((4, 4, 1))
    x = layers.Conv2D(8, 1, name="conv")(image)
    x = layers.Conv1D(6, 1)(layers.Reshape((8, 16), name="pairs")(x))
    model = keras.Model(image, layers.Dense(2)(layers.Flatten()(x)))
    randomize(model, np.random.default_rng(0))
    assert groups(model)["conv"].channels == 8
    _, smaller = assert_equal_without_zeros(model, 3, (4, 4, 1))
    assert smaller.get_layer("pairs").target_shape == (8, 2 * smaller.get_layer("conv").filters)


def test_a_shared_layer_ties_its_callers():
    fresh(0)
    image = keras.Input((8, 8, 1))
    shared = layers.Conv2D(8, 3, padding="same", name="shared")
    a, b = layers.Conv2D(6, 1, name="a")(image), layers.Conv2D(6, 1, name="b")(image)
    x = layers.Concatenate()([shared(a), shared(b)])
    model = keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    channels = channels_of(model)
    assert {group.layers for group in channels.groups} == {("a", "b"), ("shared",)}
    assert sum(use.layer.name == "shared" for use in channels.uses) == 2
    assert_equal_without_zeros(model, 1, (8, 8, 1))


def test_a_shared_reshape_of_different_shapes_is_left_whole():
    fresh(0)
    image = keras.Input((8, 8, 1))
    fold = layers.Reshape((-1, 8), name="fold")
    a, b = layers.Conv2D(8, 1, name="a")(image), layers.Conv2D(4, 1, name="b")(image)
    ends = [layers.GlobalAveragePooling1D()(fold(a)), layers.GlobalAveragePooling1D()(fold(b))]
    model = keras.Model(image, layers.Dense(2)(layers.Add()(ends)))
    assert_equal_without_zeros(model, 1, (8, 8, 1))


def test_free_sizes_stay_free():
    fresh(0)
    image = keras.Input((None, None, 1))
    x = layers.Conv2D(8, 3, name="conv")(image)
    model = keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    _, smaller = assert_equal_without_zeros(model, 3, (9, 7, 1))
    assert smaller.input_shape == (None, None, None, 1)
    assert channels_of(model, (9, 7, 1)).uses[0].shape.height == 9


def test_token_models_lose_embedding_channels():
    fresh(0)
    words = keras.Input((7,), dtype="int32")
    x = layers.Conv1D(8, 3, name="conv")(layers.Embedding(20, 12, name="words")(words))
    model = keras.Model(words, layers.Dense(2)(layers.GlobalMaxPooling1D()(x)))
    channels = channels_of(model, (7,))
    assert {group.name: group.channels for group in channels.groups} == {"words": 12, "conv": 8}
    gone = some(channels, np.random.default_rng(0))
    silence(channels, gone)
    x = np.random.default_rng(0).integers(0, 20, (5, 7))
    np.testing.assert_allclose(remove(model, channels, gone)(x), model(x), atol=1e-6)


def test_names_survive_and_the_result_can_be_saved(tmp_path):
    model = build(["chain", "nested", "squeeze_excite"], "flatten", 5)
    channels = channels_of(model)
    smaller = remove(model, channels, some(channels, np.random.default_rng(0)))
    assert [layer.name for layer in smaller.layers] == [layer.name for layer in model.layers]
    smaller.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", compile=False)
    x = np.random.default_rng(1).normal(size=(2, *SHAPE)).astype(np.float32)
    np.testing.assert_array_equal(again(x), smaller(x))


def test_a_subclassed_model_is_refused():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, x):
            return self.dense(x)

    model = Own()
    model(np.zeros((1, 2), np.float32))
    model.inputs = [keras.Input((2,))]
    with pytest.raises(CheckpointError, match="graph is not known"):
        trace(model, (2,))
