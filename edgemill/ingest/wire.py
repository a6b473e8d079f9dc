"""Just enough of the protobuf wire format to recognize an ONNX file and find its external data.

Only the standard library is used, so that a checkpoint can be judged before any framework is loaded.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

# Field numbers of onnx.proto (ONNX IR version 3 to 13).
_MODEL_IR_VERSION, _MODEL_GRAPH, _MODEL_OPSET, _MODEL_FUNCTIONS = 1, 7, 8, 25
_MODEL_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_ATTRIBUTE, _FUNCTION_NODE = 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_TENSOR_EXTERNAL, _ENTRY_KEY, _ENTRY_VALUE = 13, 1, 2
_DEPTH = 64


class TruncatedError(Exception):
    """The content ends in the middle of a field; the text says where."""


class _MalformedError(Exception):
    """These bytes are no protobuf message."""


def looks_like_onnx(path: Path) -> bool:
    """Whether a file is an ONNX model: every top-level field has a number and type of ModelProto.

    Raises:
        TruncatedError: it begins as one, with an IR version, and then ends too early. (IR version 3
            and later, of 2017, must name an operator set, and it is written behind the graph.)
    """
    if path.stat().st_size < 4:
        return False
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        seen: set[int] = set()
        try:
            for number, kind, _, _ in _fields(data, 0, len(data)):
                if _MODEL_FIELDS.get(number) != kind:
                    return False
                seen.add(number)
        except _MalformedError:
            return False
        except TruncatedError:
            if _MODEL_IR_VERSION in seen:
                raise
            return False
        if {_MODEL_IR_VERSION, _MODEL_GRAPH} <= seen and _MODEL_OPSET not in seen:
            raise TruncatedError("the file ends before its operator set")
        return {_MODEL_IR_VERSION, _MODEL_GRAPH} <= seen


def external_locations(path: Path) -> list[str]:
    """Locations of external data that the tensors of an ONNX file name, sorted, each once.

    Raises:
        TruncatedError: the file ends too early or is nested absurdly deep.
    """
    found: set[str] = set()
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            for number, kind, start, end in _fields(data, 0, len(data)):
                if kind == 2 and number == _MODEL_GRAPH:
                    _graph(data, start, end, found, 0)
                elif kind == 2 and number == _MODEL_FUNCTIONS:
                    for inner, inner_kind, begin, stop in _fields(data, start, end):
                        if inner == _FUNCTION_NODE and inner_kind == 2:
                            _node(data, begin, stop, found, 0)
        except _MalformedError as error:
            raise TruncatedError(str(error)) from error
    return sorted(found)


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field number, wire type, start, end of its value) of every field of a message."""
    position = start
    while position < end:
        key, position = _varint(data, position, end)
        number, kind = key >> 3, key & 7
        if number == 0 or kind in (3, 4, 6, 7):
            raise _MalformedError(f"no protobuf field at byte {position}")
        if kind == 0:
            begin = position
            _, position = _varint(data, position, end)
        else:
            if kind == 2:
                length, position = _varint(data, position, end)
            else:
                length = 8 if kind == 1 else 4
            begin = position
            position += length
            if position > end:
                raise TruncatedError(f"field {number} at byte {begin} needs {length} bytes, {end - begin} are there")
        yield number, kind, begin, position


def _varint(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise TruncatedError(f"the file ends inside a number at byte {position}")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _MalformedError(f"no number at byte {position}")


def _graph(data: mmap.mmap, start: int, end: int, found: set[str], depth: int) -> None:
    if depth > _DEPTH:
        raise TruncatedError(f"graphs nested more than {_DEPTH} deep")
    for number, kind, begin, stop in _fields(data, start, end):
        if kind != 2:
            continue
        if number == _GRAPH_INITIALIZER:
            _tensor(data, begin, stop, found)
        elif number == _GRAPH_NODE:
            _node(data, begin, stop, found, depth)
        elif number == _GRAPH_SPARSE:
            for inner, inner_kind, inner_begin, inner_stop in _fields(data, begin, stop):
                if inner in (1, 2) and inner_kind == 2:
                    _tensor(data, inner_begin, inner_stop, found)


def _node(data: mmap.mmap, start: int, end: int, found: set[str], depth: int) -> None:
    for number, kind, begin, stop in _fields(data, start, end):
        if number != _NODE_ATTRIBUTE or kind != 2:
            continue
        for inner, inner_kind, inner_begin, inner_stop in _fields(data, begin, stop):
            if inner_kind != 2:
                continue
            if inner in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
                _tensor(data, inner_begin, inner_stop, found)
            elif inner in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                _graph(data, inner_begin, inner_stop, found, depth + 1)


def _tensor(data: mmap.mmap, start: int, end: int, found: set[str]) -> None:
    for number, kind, begin, stop in _fields(data, start, end):
        if number != _TENSOR_EXTERNAL or kind != 2:
            continue
        entry = {inner: data[a:b] for inner, inner_kind, a, b in _fields(data, begin, stop) if inner_kind == 2}
        if entry.get(_ENTRY_KEY) == b"location":
            found.add(entry.get(_ENTRY_VALUE, b"").decode("utf-8", "replace"))
