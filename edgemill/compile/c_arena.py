"""Memory of intermediate tensors in generated C: those that are never needed together share their place.

emx-onnx-cgen gives every tensor an array of its own on the stack of the model's function, and gcc shares no place
within one block. Here the arrays of one element type become parts of one array, planned by when each is first
written and last read. Only equal element types share, so no rule of C on types is touched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ARRAY = re.compile(r"^    (\w+) (\w+)((?:\[\d+\])+);$")
_CALL = re.compile(r"^    \w+\((?:[^()]*)\);$")


@dataclass(frozen=True)
class Tensor:
    """An intermediate tensor.

    Attributes:
        kind: element type in C.
        shape: of the array.
        first: index of the first call that has it as an argument.
        last: index of the last.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    first: int
    last: int

    @property
    def size(self) -> int:
        """Number of elements."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count


def share(text: str, entry: str) -> str:
    """The same C with planned memory.

    Where the body of the function is not the plain list of arrays and calls that is expected, nothing is changed.

    Args:
        text: of a generated file.
        entry: name of the model's function.
    """
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith(f"void {entry}(")), None)
    if start is None or not lines[start].endswith("{"):
        return text
    end = next((i for i, line in enumerate(lines[start:], start) if line == "}"), len(lines))
    body = lines[start + 1 : end]
    arrays = [found for line in body if (found := _ARRAY.match(line))]
    calls = [line for line in body if _CALL.match(line)]
    if len(arrays) + len(calls) != len(body) or not arrays:
        return text
    tensors = _lives([(found[2], found[1], _extents(found[3])) for found in arrays], calls)
    declared: list[str] = []
    for kind in sorted({tensor.kind for tensor in tensors}):
        alike = [tensor for tensor in tensors if tensor.kind == kind]
        places, size = plan(alike)
        declared.append(f"    {kind} arena_{kind}[{size}];")
        declared += [_place(tensor, places[tensor.name]) for tensor in alike]
    return "\n".join([*lines[: start + 1], *declared, *calls, *lines[end:]]) + "\n"


def plan(tensors: list[Tensor]) -> tuple[dict[str, int], int]:
    """Where each tensor begins, and the size of the whole, in elements: the largest first, each as low as it fits."""
    placed: list[tuple[int, Tensor]] = []
    for tensor in sorted(tensors, key=lambda t: (-t.size, t.first, t.name)):
        begin = 0
        for low, other in sorted(placed, key=lambda entry: entry[0]):
            together = other.first <= tensor.last and tensor.first <= other.last
            if together and low < begin + tensor.size and begin < low + other.size:
                begin = low + other.size
        placed.append((begin, tensor))
    size = max((begin + tensor.size for begin, tensor in placed), default=0)
    return {tensor.name: begin for begin, tensor in placed}, size


def _lives(arrays: list[tuple[str, str, tuple[int, ...]]], calls: list[str]) -> list[Tensor]:
    uses: dict[str, list[int]] = {name: [] for name, _, _ in arrays}
    for index, call in enumerate(calls):
        for word in set(re.findall(r"\w+", call)) & uses.keys():
            uses[word].append(index)
    return [
        Tensor(name, kind, shape, min(uses[name], default=0), max(uses[name], default=0))
        for name, kind, shape in arrays
    ]


def _extents(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in re.findall(r"\d+", text))


def _place(tensor: Tensor, begin: int) -> str:
    inner = "".join(f"[{size}]" for size in tensor.shape[1:])
    arena = f"arena_{tensor.kind} + {begin}"
    if not inner:
        return f"    {tensor.kind} *const {tensor.name} = {arena};"
    return f"    {tensor.kind} (*const {tensor.name}){inner} = ({tensor.kind} (*){inner})({arena});"
