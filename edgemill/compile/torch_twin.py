"""An ONNX model as a PyTorch module, by the code that pnnx writes: what ExecuTorch and Core ML are fed with.

The code is made from a copy of the graph whose names were replaced by numbers, so that nothing of a foreign file's
text ends up in it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from edgemill.artifact import TensorSpec
from edgemill.compile.foreign import run_program, single_sample
from edgemill.errors import ToolchainError

_LIMIT_S = 600.0


def twin(source: Path, folder: Path) -> tuple[torch.nn.Module, TensorSpec]:
    """Translate an ONNX model, float32 throughout.

    Args:
        source: the model; its batch is free or 1.
        folder: for what pnnx writes; absolute.

    Returns:
        The module for inference, and its input with a batch of one.

    Raises:
        ToolchainError: pnnx fails, or writes something that is no module.
    """
    entry = single_sample(source)
    graph = folder / "model.onnx"
    onnx.save(numbered(onnx.load(str(source))), str(graph))
    sizes = ",".join(str(size) for size in entry.shape)
    told = run_program([str(_program()), str(graph), f"inputshape=[{sizes}]f32"], folder, _LIMIT_S, str(source))
    code = folder / "model_pnnx.py"
    if not code.is_file():
        raise ToolchainError("pnnx wrote no module.", where=str(source), got=told.strip()[-200:])
    # the code looks for its weights in the working folder; they are beside it
    text = code.read_text(encoding="utf-8").replace("'model.pnnx.bin'", repr(str(folder / "model.pnnx.bin")))
    code.write_text(text, encoding="utf-8")
    try:
        spec = importlib.util.spec_from_file_location("edgemill_pnnx_model", code)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model: torch.nn.Module = module.Model().eval()
    except Exception as error:  # generated code can fail in any way
        raise ToolchainError(
            "The module that pnnx wrote cannot be used.",
            where=str(source),
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            remedy="the model has operators that pnnx does not translate: choose another target",
        ) from error
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model, entry


def answers(model: torch.nn.Module, x: NDArray[np.float32], where: str) -> NDArray[np.float32]:
    """Answers of a module, one sample a call, float32 (N, ...).

    Raises:
        ToolchainError: it cannot be run.
    """
    try:
        with torch.no_grad():
            return np.concatenate([model(torch.from_numpy(x[i : i + 1])).numpy() for i in range(len(x))])
    except Exception as error:  # generated code can fail in any way
        raise ToolchainError(
            "The module that pnnx wrote cannot be run.", where=where, got=" ".join(str(error).split())[:200]
        ) from error


def numbered(model: ModelProto) -> ModelProto:
    """A graph with numbers instead of names, in place; graphs inside of nodes are refused.

    Raises:
        ToolchainError: a node has a graph inside.
    """
    names: dict[str, str] = {"": ""}

    def number(name: str) -> str:
        return names.setdefault(name, f"t{len(names)}")

    graph = model.graph
    for index, node in enumerate(graph.node):
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise ToolchainError("pnnx does not translate control flow.", where=node.name, got=node.op_type)
        node.name, node.doc_string = f"n{index}", ""
        node.input[:] = [number(name) for name in node.input]
        node.output[:] = [number(name) for name in node.output]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name, value.doc_string = number(value.name), ""
    del graph.value_info[:]
    del model.metadata_props[:]
    graph.name, graph.doc_string, model.doc_string = "model", "", ""
    return model


def _program() -> Path:
    found = importlib.util.find_spec("pnnx")
    if found is None or not found.submodule_search_locations:
        raise ToolchainError("pnnx is not installed.", remedy="edgemill targets install torch")
    return Path(found.submodule_search_locations[0]) / "pnnx"


def quiet_call(what: str, where: str, call: Any) -> Any:
    """Call into a compiler that raises whatever it likes.

    Raises:
        ToolchainError: it failed, with its last words.
    """
    try:
        return call()
    except Exception as error:  # see above
        raise ToolchainError(
            f"{what} failed.", where=where, got=f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}"
        ) from error
