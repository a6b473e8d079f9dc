"""A small network and its QDQ forms, a store to run compile steps in, and how a test asks for a toolchain."""

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import QuantType

from edgemill.compile import CompileSettings
from edgemill.compile.backend import backend_of
from edgemill.execute import Call, execute
from edgemill.store import Store
from tests.runtimes import models


def network(folder):
    return models.conv_onnx(folder / "conv.onnx")


def pairs(folder, activations=QuantType.QInt8):
    return models.quantized(network(folder), folder / f"{activations.name}.onnx", activations)


def change(model, name, values):
    """Replace a constant."""
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(values), name))


def compiled(folder, target, source, scheme, count=40):
    """Run the compile step of a target in its own process and environment."""
    store = Store(folder / "store")
    data = models.dataset(folder / "data", models.images(count, seed=7))
    artifacts = {
        "model": store.put(source, kind="onnx", step="test"),
        "data": store.put(data, kind="dataset", step="test"),
    }
    settings = CompileSettings(target=target.essence, scheme=scheme)
    call = Call(backend_of(target).step, settings, artifacts, toolchain=target.toolchain)
    record = execute(store, call, lambda *_: None).record
    return record, {name: store.path(artifact) for name, artifact in record.outputs.items()}


def loaded(path):
    return onnx.load(str(path))
