"""Random networks with all the ways in which channels can be coupled."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from edgemill.tf import fresh, keras

layers = keras.layers
SHAPE = (8, 8, 3)
BLOCKS = (
    "conv", "strided", "valid", "grouped", "depthwise", "separable", "transposed", "batch_norm", "group_norm",
    "instance_norm", "layer_norm", "prelu", "prelu_whole", "leaky", "tanh", "dropout", "add", "subtract", "average",
    "maximum", "multiply", "chain", "squeeze_excite", "gate_dense", "spatial_gate", "concat", "concat_add", "dense_net",
    "concat_rows", "pool", "upsample", "pad", "crop", "swap_axes", "channels_first", "rows", "nested", "nested_twice",
    "shared", "operator", "softmax", "custom",
)  # fmt: skip
HEADS = ("pool", "max_pool", "flatten", "wide", "decoder", "vector_norm", "recurrent")

plans = st.tuples(
    st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=5),
    st.sampled_from(HEADS),
    st.integers(0, 2**31 - 1),
)


def build(blocks, head, seed):
    """A functional model (8, 8, 3) -> 4 with random weights and statistics."""
    fresh(0)
    rng = np.random.default_rng(seed)
    image = keras.Input(SHAPE)
    x = _conv(image, rng, 8)
    for block in blocks:
        x = _block(block, x, rng)
    model = keras.Model(image, _head(head, x, rng))
    randomize(model, rng)
    return model


def randomize(model, rng):
    """Random weights in which every number matters."""
    for variable in model.variables:
        shape = tuple(variable.shape)
        if "moving_variance" in variable.name:
            value = rng.uniform(0.5, 2.0, shape)
        elif len(shape) > 1 and "alpha" not in variable.name:
            fan = np.prod(shape[:-1])
            value = rng.normal(size=shape) / np.sqrt(fan)
        else:
            value = rng.uniform(-0.8, 0.8, shape) if "gamma" not in variable.name else rng.uniform(0.5, 1.5, shape)
        variable.assign(value.astype(np.float32))


def _conv(x, rng, filters=None, **options):
    filters = int(rng.integers(2, 5)) * 4 if filters is None else filters
    options = {"kernel_size": int(rng.choice([1, 3])), "padding": "same", "use_bias": bool(rng.integers(2))} | options
    return layers.Conv2D(filters, **options)(x)


def _alike(x, rng, **options):
    """A convolution whose answer has the shape of its input."""
    return _conv(x, rng, int(x.shape[-1]), **options)


def _gate(x, rng, activation="sigmoid"):
    width = int(x.shape[-1])
    gate = layers.GlobalAveragePooling2D()(x)
    gate = layers.Dense(8, activation="relu")(gate)
    return layers.Dense(width, activation=activation)(gate)


def _inner(width, rng):
    given = keras.Input((None, None, width))
    y = layers.ReLU()(_conv(given, rng, 8))
    return keras.Model(given, layers.Add()([given, _conv(y, rng, width)]))


def _block(kind, x, rng):
    height, depth, width = (int(size) for size in x.shape[1:])
    merges = {
        "add": layers.Add, "subtract": layers.Subtract, "average": layers.Average, "maximum": layers.Maximum,
        "multiply": layers.Multiply,
    }  # fmt: skip
    if kind in merges:
        return merges[kind]()([x, _alike(x, rng)])
    if kind == "conv":
        return _conv(x, rng, activation=str(rng.choice(["relu", "tanh", "swish"])))
    if kind == "strided":
        return _conv(x, rng, strides=2) if min(height, depth) > 3 else x
    if kind == "valid":
        return _conv(x, rng, kernel_size=3, padding="valid") if min(height, depth) > 4 else x
    if kind == "grouped":
        return _conv(x, rng, 16, groups=4 if width % 4 == 0 else 1)
    if kind == "depthwise":
        return layers.DepthwiseConv2D(3, padding="same", depth_multiplier=int(rng.integers(1, 3)))(x)
    if kind == "separable":
        return layers.SeparableConv2D(12, 3, padding="same", depth_multiplier=int(rng.integers(1, 3)))(x)
    if kind == "transposed":
        return layers.Conv2DTranspose(8, 3, strides=2, padding="same")(x) if height < 9 else x
    if kind == "batch_norm":
        return layers.ReLU()(layers.BatchNormalization(scale=bool(rng.integers(2)))(x))
    if kind == "group_norm":
        return layers.GroupNormalization(4)(x) if width % 4 == 0 else x
    if kind == "instance_norm":
        return layers.GroupNormalization(-1)(x)
    if kind == "layer_norm":
        return layers.LayerNormalization()(x)
    if kind == "prelu":
        return layers.PReLU(shared_axes=[1, 2])(x)
    if kind == "prelu_whole":
        return layers.PReLU()(x)
    if kind == "leaky":
        return layers.LeakyReLU(0.1)(x)
    if kind == "tanh":
        return layers.Activation("tanh")(x)
    if kind == "dropout":
        return layers.SpatialDropout2D(0.2)(layers.Dropout(0.2)(x))
    if kind == "chain":
        for _ in range(3):
            y = layers.ReLU()(layers.BatchNormalization()(_conv(x, rng, 8)))
            x = layers.ReLU()(layers.Add()([x, layers.BatchNormalization()(_conv(y, rng, width))]))
        return x
    if kind == "squeeze_excite":
        return layers.Multiply()([x, layers.Reshape((1, 1, width))(_gate(x, rng))])
    if kind == "gate_dense":
        mean = layers.GlobalAveragePooling2D(keepdims=True)(x)
        return layers.Multiply()([layers.Conv2D(width, 1, activation="sigmoid")(_conv(mean, rng, 4)), x])
    if kind == "spatial_gate":
        return layers.Multiply()([x, layers.Conv2D(1, 3, padding="same", activation="sigmoid")(x)])
    if kind == "concat":
        return layers.Concatenate()([x, _conv(x, rng), layers.ReLU()(x)])
    if kind == "concat_add":
        joined = layers.Concatenate()([_conv(x, rng, 4), _conv(x, rng, 8)])
        return layers.Add()([joined, _conv(x, rng, 12)])
    if kind == "dense_net":
        for _ in range(2):
            x = layers.Concatenate()([x, _conv(layers.BatchNormalization()(x), rng, 4)])
        return x
    if kind == "concat_rows":
        return layers.Concatenate(axis=1)([x, _alike(x, rng)]) if height < 9 else x
    if kind == "pool":
        kinds = [layers.MaxPooling2D, layers.AveragePooling2D]
        return kinds[int(rng.integers(2))](2)(x) if min(height, depth) > 3 else x
    if kind == "upsample":
        return layers.UpSampling2D(2)(x) if height < 9 else x
    if kind == "pad":
        return layers.ZeroPadding2D(1)(x)
    if kind == "crop":
        return layers.Cropping2D(1)(x) if min(height, depth) > 4 else x
    if kind == "swap_axes":
        return layers.Permute((2, 1, 3))(x)
    if kind == "channels_first":
        return layers.Permute((2, 3, 1))(layers.BatchNormalization(axis=1)(layers.Permute((3, 1, 2))(x)))
    if kind == "rows":
        y = layers.Reshape((height * depth, width))(x)
        y = layers.Conv1D(8, 3, padding="causal", activation="relu")(y)
        return layers.Reshape((height, depth, -1))(layers.SeparableConv1D(8, 3, padding="same")(y))
    if kind == "nested":
        return _inner(width, rng)(x)
    if kind == "nested_twice":
        inner = _inner(width, rng)
        return inner(layers.ReLU()(inner(x)))
    if kind == "shared":
        conv, norm = layers.Conv2D(width, 3, padding="same"), layers.BatchNormalization()
        return norm(conv(layers.ReLU()(norm(conv(x)))))
    if kind == "operator":
        return keras.activations.relu(x * 2.0 - _alike(x, rng))
    if kind == "softmax":
        return layers.Softmax()(x)
    assert kind == "custom"
    return layers.Lambda(lambda tensor: tensor * 0.5)(x)


def _head(kind, x, rng):
    height, depth, width = (int(size) for size in x.shape[1:])
    if kind == "pool":
        y = layers.GlobalAveragePooling2D()(x)
    elif kind == "max_pool":
        y = layers.GlobalMaxPooling2D()(x)
    elif kind == "flatten":
        y = layers.Flatten()(x)
    elif kind == "wide":
        y = layers.Reshape((height * depth * width,))(x)
        y = layers.Dense(16, activation="relu")(layers.BatchNormalization()(y))
    elif kind == "decoder":
        y = layers.Dense(2 * 2 * 8)(layers.GlobalAveragePooling2D()(x))
        y = layers.Flatten()(layers.Conv2D(8, 3, padding="same")(layers.Reshape((2, 2, 8))(y)))
    elif kind == "vector_norm":
        y = layers.UnitNormalization()(layers.Dense(12)(layers.GlobalAveragePooling2D()(x)))
    else:
        assert kind == "recurrent"
        y = layers.GRU(6)(layers.Reshape((height * depth, width))(x))
    return layers.Dense(4)(y)
