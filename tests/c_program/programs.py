"""Small networks in a store, and folders whose programs are scripts."""

import shutil
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from edgemill.artifact import Signature, TensorSpec
from edgemill.compile import COMPILE_C, CompileSettings
from edgemill.data.dataset import Dataset, SplitName, write_dataset
from edgemill.execute import Call, execute
from edgemill.quantize import StaticSettings, static
from edgemill.recipe import Preprocess
from edgemill.runtimes.program import HOST, MANIFEST, TARGET, ProgramManifest
from edgemill.step import InputFile, StepContext
from edgemill.store import Store
from edgemill.targets import load_target

TARGETS = ("x86-64-c", "arm64-linux-c", "riscv64-linux-c", "cortex-m4-bare-c")
SIZE, CLASSES = 8, 5


def network(path, *, softmax=False, further=None):
    """Two convolutions with a sum, a mean over the picture, a matrix product; and what is wanted after it."""
    rng = np.random.default_rng(5)
    constants = {
        "w1": rng.normal(0, 0.4, (4, 1, 3, 3)),
        "b1": rng.normal(0, 0.1, 4),
        "w2": rng.normal(0, 0.3, (4, 4, 3, 3)),
        "b2": rng.normal(0, 0.1, 4),
        "w3": rng.normal(0, 1, (4, CLASSES)),
        "b3": rng.normal(0, 0.1, CLASSES),
    }
    nodes = [
        helper.make_node("Conv", ["input", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["sum"]),
        helper.make_node("GlobalAveragePool", ["sum"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["logits"]),
    ]
    name = "logits"
    if softmax:
        nodes.append(helper.make_node("Softmax", [name], ["shares"]))
        name = "shares"
    if further:
        nodes.append(helper.make_node(further, [name], ["further"], domain="ai.onnx.ml"))
        name = "further"
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, SIZE, SIZE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(values.astype(np.float32), key) for key, values in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


class Bench:
    """A store with a dataset, and models in it."""

    def __init__(self, folder):
        self.folder = folder
        self.store = Store(folder / "store")
        x = np.random.default_rng(1).normal(0, 1, (96, 1, SIZE, SIZE)).astype(np.float32)
        y = np.arange(96) % CLASSES
        data = folder / "data"
        data.mkdir()
        write_dataset(data, dict.fromkeys(SplitName, x), dict.fromkeys(SplitName, y), Preprocess())
        self.data = self.put(data, "dataset")
        self.x = Dataset(self.path(self.data)).features(SplitName.TEST)

    def put(self, path, kind):
        copy = self.folder / "put" / path.name
        copy.parent.mkdir(exist_ok=True)
        shutil.move(path, copy)
        return self.store.put(copy, kind=kind, step="test")

    def path(self, artifact):
        return self.store.path(artifact)

    def float_model(self, **options):
        return self.put(network(self.folder / "net.onnx", **options), "onnx")

    def int8_model(self, **options):
        source = self.float_model(**options)
        work = self.folder / f"quantize-{source.digest[:8]}"
        (work / "out").mkdir(parents=True)
        (work / "resume").mkdir()
        context = StepContext(work / "out", work / "resume", 0, lambda *_: None)
        settings = StaticSettings(int8=load_target(TARGETS[0]).int8)
        inputs = {"onnx": InputFile(self.path(source), source), "data": InputFile(self.path(self.data), self.data)}
        return self.put(static.run(settings, inputs, context).files["onnx"].path, "onnx")

    def compile(self, target, model, scheme):
        settings = CompileSettings(target=target.essence, scheme=scheme)
        call = Call(COMPILE_C, settings, {"model": model, "data": self.data}, toolchain=target.toolchain)
        return execute(self.store, call, lambda *_: None).record


def reference(path, x):
    """What onnxruntime answers."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": x})[0]


def script(body):
    lines = [line.strip() for line in body.strip().splitlines()]
    return f"#!{sys.executable}\n" + "\n".join(lines) + "\n"


def program_folder(folder, body):
    """A folder whose program for this host is a script."""
    signature = Signature(
        inputs=(TensorSpec(name="input", dtype="float32", shape=(1, 3)),),
        outputs=(TensorSpec(name="output", dtype="float32", shape=(1, 2)),),
    )
    manifest = ProgramManifest(signature=signature, arch="pdp-11", host_arch="any", exact=True)
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    for name in (TARGET, HOST):
        (folder / name).write_text(script(body))
    return folder
