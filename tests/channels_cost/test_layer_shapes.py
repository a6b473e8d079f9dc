"""Shapes of a Keras model's layers: their MACs are those that the graph computes."""

from edgemill.channels.cost import MacsCost
from edgemill.channels.geometry import layer_shapes
from edgemill.tf import keras

layers = keras.layers


def _macs(model):
    return {layer.name: MacsCost().layer(layer.shape) for layer in layer_shapes(model)}


def test_every_kind_of_layer():
    entry = x = layers.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", strides=2, name="conv")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="valid", name="depthwise")(x)
    x = layers.Conv2D(8, 1, groups=2, name="grouped")(x)
    x = layers.Conv2DTranspose(6, 2, strides=2, name="transposed")(x)
    x = layers.Reshape((16, 6))(x)
    x = layers.Conv1D(5, 3, padding="causal", name="line")(x)
    x = layers.Dense(7, name="per_position")(x)
    x = layers.Dense(2, name="dense")(layers.GlobalAveragePooling1D()(x))
    assert _macs(keras.Model(entry, x)) == {
        "conv": 4 * 4 * 9 * 3 * 4,
        "depthwise": 2 * 2 * 9 * 8,
        "grouped": 2 * 2 * 4 * 8,
        "transposed": 2 * 2 * 4 * 8 * 6,
        "line": 16 * 3 * 6 * 5,
        "per_position": 16 * 5 * 7,
        "dense": 14,
    }


def test_shared_layers_count_once_per_call_and_nested_models_are_named():
    inner = keras.Sequential([layers.Input((4,)), layers.Dense(4, name="inside")], name="inner")
    shared = layers.Dense(4, name="shared")
    entry = layers.Input((4,))
    model = keras.Model(entry, inner(shared(shared(entry))))
    assert [layer.name for layer in layer_shapes(model)] == ["shared", "shared", "inner/inside"]


def test_separable_convolution_gives_two_shapes():
    model = keras.Sequential([layers.Input((6, 6, 3)), layers.SeparableConv2D(5, 3, name="separable")])
    assert [MacsCost().layer(layer.shape) for layer in layer_shapes(model)] == [4 * 4 * 9 * 3, 4 * 4 * 3 * 5]
