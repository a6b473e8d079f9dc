"""Random ONNX graphs whose channels are coupled in many ways."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

MAP = (6, 6)


class Builder:
    """Makes a graph node by node; tensors are (batch, channels, 6, 6) unless said otherwise."""

    def __init__(self, seed, opset=17):
        self.random = np.random.default_rng(seed)
        self.nodes, self.constants, self.opset = [], [], opset
        self.channels = {"x": 3}

    def constant(self, value):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weights(self, *size):
        scale = np.sqrt(2.0 / max(1, np.prod(size[1:])))
        return self.constant((self.random.normal(size=size) * scale).astype(np.float32))

    def node(self, kind, *inputs, channels=None, outputs=1, **attributes):
        names = [f"t{len(self.nodes)}" + (f"_{i}" if i else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"{kind}{len(self.nodes)}", **attributes))
        for name in names:
            self.channels[name] = channels if channels is not None else self.channels.get(inputs[0])
        return names[0] if outputs == 1 else names

    def conv(self, x, outputs, size=3, groups=1, bias=True, kind="Conv"):
        inputs = self.channels[x]
        extra = [self.weights(outputs)] if bias else []
        return self.node(
            "Conv",
            x,
            self.weights(outputs, inputs // groups, size, size),
            *extra,
            channels=outputs,
            kernel_shape=[size, size],
            pads=[size // 2] * 4,
            group=groups,
        )

    def model(self, output, rank=2):
        entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, *MAP])
        answer = helper.make_tensor_value_info(output, TensorProto.FLOAT, [None] * rank)
        graph = helper.make_graph(self.nodes, "random", [entry], [answer], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


def _norm(b, x):
    count = b.channels[x]
    numbers = [b.constant(b.random.uniform(0.5, 1.5, count).astype(np.float32)) for _ in range(4)]
    return b.node("BatchNormalization", x, *numbers)


def _depthwise(b, x):
    count = b.channels[x]
    multiplier = int(b.random.integers(1, 3)) if count <= 12 else 1
    w = b.weights(count * multiplier, 1, 3, 3)
    return b.node("Conv", x, w, channels=count * multiplier, kernel_shape=[3, 3], pads=[1] * 4, group=count)


def _residual(b, x):
    y = b.node("Relu", b.conv(x, b.channels[x]))
    return b.node("Add", b.conv(y, b.channels[x], bias=False), x)


def _shortcut(b, x):
    count = int(b.random.integers(4, 9))
    return b.node("Add", b.conv(x, count), b.conv(x, count, 1))


def _concat(b, x):
    left, right = b.conv(x, int(b.random.integers(2, 7))), b.conv(x, int(b.random.integers(2, 7)), 1)
    return b.node("Concat", left, right, axis=1, channels=b.channels[left] + b.channels[right])


def _squeeze(b, x):
    count = b.channels[x]
    pooled = b.node("GlobalAveragePool", x)
    gate = b.node("Sigmoid", b.conv(b.node("Relu", b.conv(pooled, 4, 1)), count, 1))
    return b.node("Mul", x, gate)


def _squeeze_dense(b, x):
    count = b.channels[x]
    flat = b.node("Flatten", b.node("GlobalAveragePool", x), axis=1)
    small = b.node("Relu", b.node("Gemm", flat, b.weights(4, count), b.weights(4), transB=1, channels=4))
    gate = b.node("Gemm", small, b.weights(4, count), b.weights(count), channels=count)
    shaped = b.node("Reshape", b.node("HardSigmoid", gate), b.constant(np.array([-1, count, 1, 1])), channels=count)
    return b.node("Mul", x, shaped)


def _last(b, x):
    count = b.channels[x]
    rows = b.node("Transpose", x, perm=[0, 2, 3, 1])
    made = b.node("MatMul", rows, b.weights(count, 6), channels=6)
    made = b.node("Relu", b.node("Add", made, b.weights(6)))
    return b.node("Transpose", made, perm=[0, 3, 1, 2])


def _slope(b, x):
    return b.node("PRelu", x, b.constant(b.random.uniform(0, 1, (b.channels[x], 1, 1)).astype(np.float32)))


def _scale(b, x):
    return b.node(
        "Mul",
        b.constant(b.random.uniform(0.5, 2, (1, b.channels[x], 1, 1)).astype(np.float32)),
        x,
        channels=b.channels[x],
    )


def _pad(b, x):
    padded = b.node("Pad", x, b.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1])))
    return b.node("MaxPool", padded, kernel_shape=[3, 3])


def _resize(b, x):
    large = b.node("Resize", x, "", "", b.constant(np.array([1, b.channels[x], 12, 12])), mode="nearest")
    return b.node("AveragePool", large, kernel_shape=[2, 2], strides=[2, 2])


def _transposed(b, x):
    w = b.weights(b.channels[x], 5, 3, 3)
    return b.node("ConvTranspose", x, w, b.weights(5), channels=5, kernel_shape=[3, 3], pads=[1] * 4)


def _groups(b, x):
    return b.conv(b.conv(x, 8), 8, groups=2)


def _spatial_gate(b, x):
    mean = b.node("ReduceMean", x, axes=[1], keepdims=1, channels=1)
    return b.node("Mul", x, b.node("Sigmoid", mean))


def _split(b, x):
    even = b.conv(x, 8)
    one, other = b.node("Split", even, b.constant(np.array([4, 4])), axis=1, outputs=2, channels=4)
    return b.node("Add", one, other)


def _run_time_shape(b, x):
    count = b.channels[x]
    batch = b.node("Gather", b.node("Shape", x), b.constant(np.array([0])), axis=0)
    rest = b.constant(np.array([count, MAP[0] * MAP[1]]))
    flat = b.node("Reshape", x, b.node("Concat", batch, rest, axis=0), channels=count)
    return b.node("Reshape", flat, b.constant(np.array([-1, count, *MAP])), channels=count)


def _shuffle(b, x):
    y = b.conv(x, 8)
    apart = b.node("Reshape", y, b.constant(np.array([-1, 2, 4, *MAP])))
    return b.node(
        "Reshape", b.node("Transpose", apart, perm=[0, 2, 1, 3, 4]), b.constant(np.array([-1, 8, *MAP])), channels=8
    )


def _instance(b, x):
    count = b.channels[x]
    return b.node("InstanceNormalization", x, b.weights(count), b.weights(count))


def _positions(b, x):
    count, size = b.channels[x], MAP[0] * MAP[1]
    rows = b.node("Reshape", x, b.constant(np.array([0, 0, size])), channels=count)
    mixed = b.node("MatMul", rows, b.weights(size, size), channels=count)
    return b.node("Reshape", mixed, b.constant(np.array([-1, count, *MAP])), channels=count)


BLOCKS = {
    "norm": _norm,
    "depthwise": _depthwise,
    "residual": _residual,
    "shortcut": _shortcut,
    "concat": _concat,
    "squeeze": _squeeze,
    "squeeze_dense": _squeeze_dense,
    "last": _last,
    "slope": _slope,
    "scale": _scale,
    "pad": _pad,
    "resize": _resize,
    "transposed": _transposed,
    "groups": _groups,
    "spatial_gate": _spatial_gate,
    "split": _split,
    "run_time_shape": _run_time_shape,
    "shuffle": _shuffle,
    "instance": _instance,
    "positions": _positions,
}
"""Ways in which channels meet; each keeps a zero channel zero."""


def _pooled(b, x):
    flat = b.node("Flatten", b.node("GlobalAveragePool", x))
    return b.node("Gemm", flat, b.weights(b.channels[x], 4), b.weights(4), channels=4)


def _flattened(b, x):
    size = b.channels[x] * MAP[0] * MAP[1]
    flat = b.node("Reshape", x, b.constant(np.array([0, -1])))
    return b.node("Add", b.node("MatMul", flat, b.weights(size, 4), channels=4), b.weights(4))


def _flattened_last(b, x):
    size = b.channels[x] * MAP[0] * MAP[1]
    flat = b.node("Flatten", b.node("Transpose", x, perm=[0, 2, 3, 1]))
    return b.node("MatMul", flat, b.weights(size, 4), channels=4)


HEADS = {"pooled": _pooled, "flattened": _flattened, "flattened_last": _flattened_last}


def random_graph(blocks, head, seed):
    """A graph of these blocks, each behind a convolution with ReLU, in a row."""
    b = Builder(seed)
    x = "x"
    for block in blocks:
        x = b.node("Relu", b.conv(x, int(b.random.integers(4, 10)), bias=bool(b.random.integers(2))))
        x = BLOCKS[block](b, x)
    return b.model(HEADS[head](b, x))
