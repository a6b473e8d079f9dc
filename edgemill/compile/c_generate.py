"""C from an ONNX graph, by emx-onnx-cgen: `model.c`, `model.h` and a README, the same bytes every time."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from edgemill.artifact import Signature, TensorSpec
from edgemill.compile.c_arena import share
from edgemill.errors import ToolchainError

SOURCE, HEADER, README = "model.c", "model.h", "README.md"
ENTRY = "model"
"""Name of the generated function."""
FLOAT_FLAGS = ("-ffp-contract=off", "-fno-fast-math")
"""With these every compiler rounds every product and every sum, so that integers come out the same everywhere."""

_LIMIT_S = 600.0
_TYPES = {
    "float32": "float",
    "float64": "double",
    "bool": "_Bool",
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
_WIDTH = 120
_CONSTANT = re.compile(r"^(const [^\n]* = \{)\n([^;]*?)\n\};$", re.MULTILINE)
_UNSUPPORTED = re.compile(r"Unsupported op (?:ai\.onnx\.(?=[A-Z]))?([\w.]*\w)")


def generate(graph: Path, folder: Path) -> None:
    """Write `model.c`.

    Weights are constants, and every intermediate tensor is on the stack: nothing is allocated.

    Args:
        graph: from `c_graph.fused`.
        folder: where it is written.

    Raises:
        ToolchainError: the generator knows an operator not, died, hung, or wrote no such function.
    """
    source = folder / SOURCE
    source.parent.mkdir(parents=True, exist_ok=True)
    stay = ["--large-temp-threshold", "0", "--large-weight-threshold", "0"]
    command = [sys.executable, "-m", "emx_onnx_cgen", "compile", "--color", "never", "--model-name", ENTRY]
    try:
        done = subprocess.run(
            [*command, *stay, str(graph), str(source)], capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(
            "emx-onnx-cgen did not end within its time and was stopped.", expected=f"at most {_LIMIT_S:.0f} s"
        ) from error
    told = " ".join((done.stderr or done.stdout).split())
    if unknown := sorted(set(_UNSUPPORTED.findall(told))):
        raise ToolchainError(
            "emx-onnx-cgen knows an operator of the model not.",
            where="model to compile",
            got=", ".join(unknown),
            remedy="replace the operator in the model, or leave this target out",
        )
    if done.returncode != 0 or not source.exists():
        raise ToolchainError(
            "emx-onnx-cgen cannot make C of the model.",
            where="model to compile",
            got=f"exit status {done.returncode}; {told[-400:]}",
        )
    text = source.read_text(encoding="utf-8")
    if f"void {ENTRY}(" not in text or "malloc(" in text:
        raise ToolchainError(
            "emx-onnx-cgen wrote other C than it was asked for.",
            expected=f"a function {ENTRY} that allocates nothing",
            got=text[:200],
        )
    # with its declaration before it, the compiler checks the definition
    source.write_text(f'#include "{HEADER}"\n{share(compact(text), ENTRY)}', encoding="utf-8")


def compact(text: str) -> str:
    """The same C with constants in full lines: one number a line, indented, is five times as long."""

    def filled(found: re.Match[str]) -> str:
        lines, line = [], ""
        for word in found[2].split():
            if len(line) + len(word) > _WIDTH:
                lines.append(line)
                line = ""
            line += word
        return "\n".join([found[1], *lines, line, "};"])

    return _CONSTANT.sub(filled, text)


def c_type(spec: TensorSpec) -> str:
    """The element type of a tensor in C.

    Raises:
        ToolchainError: there is none.
    """
    if spec.dtype not in _TYPES:
        raise ToolchainError("C has no type for an input or output of the model.", where=spec.name, got=spec.dtype)
    return _TYPES[spec.dtype]


def array(spec: TensorSpec, name: str) -> str:
    """The declaration of an array that holds a tensor."""
    return f"{c_type(spec)} {name}" + "".join(f"[{size or 1}]" for size in spec.shape or (1,))


def prototype(signature: Signature) -> str:
    """The declaration of the generated function, without a semicolon."""
    inputs = [f"const {array(spec, f'input{i}')}" for i, spec in enumerate(signature.inputs)]
    outputs = [array(spec, f"output{i}") for i, spec in enumerate(signature.outputs)]
    return f"void {ENTRY}({', '.join(inputs + outputs)})"


def describe(signature: Signature, folder: Path) -> None:
    """Write `model.h` and the README beside `model.c`."""
    (folder / HEADER).write_text(
        "#ifndef MODEL_H\n#define MODEL_H\n\n#include <stdint.h>\n\n"
        '#ifdef __cplusplus\nextern "C" {\n#endif\n\n'
        f"{prototype(signature)};\n\n#ifdef __cplusplus\n}}\n#endif\n\n#endif\n",
        encoding="utf-8",
    )
    tensors = [*(("input", spec) for spec in signature.inputs), *(("output", spec) for spec in signature.outputs)]
    rows = [f"| {role} | {spec.name} | {array(spec, 'x')} | {_meaning(spec)} |" for role, spec in tensors]
    (folder / README).write_text(
        "# A model in C\n\n"
        f"`{SOURCE}` and `{HEADER}` need a C99 compiler and its `math.h`, no runtime and no heap. All intermediate "
        "tensors are on the stack, all weights are constants. The function keeps no state.\n\n"
        f"```c\n{prototype(signature)};\n```\n\n"
        "| | tensor | array | meaning |\n| --- | --- | --- | --- |\n" + "\n".join(rows) + "\n\n"
        f"Compile it with `{' '.join(FLOAT_FLAGS)}`: a compiler that joins a product and a sum into one rounding "
        "gives other answers than those that were tested. Link with `-lm -Wl,--gc-sections` after "
        "`-ffunction-sections -fdata-sections`.\n",
        encoding="utf-8",
    )


def _meaning(spec: TensorSpec) -> str:
    return "as it is" if spec.scale is None else f"real = {spec.scale!r} * (stored - {spec.zero_point or 0})"
