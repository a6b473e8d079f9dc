"""Lineage: from any produced file back to checkpoint and data, and forward to everything made from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from edgemill.artifact import Artifact, Frozen, digest_path
from edgemill.errors import RecipeError
from edgemill.store import StepRecord, Store

_SHORT = 12


class Node(Frozen):
    """One artifact and the step that made it, or made use of it."""

    digest: str
    kind: str
    filename: str
    size_bytes: int | None
    step: str
    depth: int


class Lineage(Frozen):
    """Ancestors (nearest first) and descendants of one artifact."""

    subject: Node
    ancestors: tuple[Node, ...]
    descendants: tuple[Node, ...]


def trace(store: Store, subject: str) -> Lineage:
    """Find an artifact by digest, by the first digits of it, or by a file with its content.

    Raises:
        RecipeError: nothing in the store has this digest, or several have these first digits.
    """
    records = sorted(store.records(), key=lambda record: record.finished_at)
    artifacts = _artifacts(records)
    digest = _resolve(subject, artifacts)
    # a step may pass its input on unchanged, so that one content has several makers
    makers: dict[str, list[StepRecord]] = {}
    users: dict[str, list[StepRecord]] = {}
    for record in records:
        for output in record.outputs.values():
            makers.setdefault(output.digest, []).append(record)
        for used in record.inputs.values():
            users.setdefault(used, []).append(record)

    def parents(item: str) -> Iterable[str]:
        return (used for record in makers.get(item, ()) for used in record.inputs.values())

    def children(item: str) -> Iterable[str]:
        return (output.digest for record in users.get(item, ()) for output in record.outputs.values())

    return Lineage(
        subject=_node(digest, artifacts, 0),
        ancestors=_walk(digest, parents, artifacts),
        descendants=_walk(digest, children, artifacts),
    )


def render(lineage: Lineage) -> str:
    """Text for a terminal: ancestors, the subject, descendants."""
    lines = ["made from"]
    lines += [_line(node) for node in reversed(lineage.ancestors)] or ["  (nothing known)"]
    lines += ["this", _line(lineage.subject), "went into"]
    lines += [_line(node) for node in lineage.descendants] or ["  (nothing yet)"]
    return "\n".join(lines)


def _line(node: Node) -> str:
    size = "" if node.size_bytes is None else f"{node.size_bytes:>12,} B"
    return f"  {node.digest[:_SHORT]}  {node.step:<22} {node.kind:<12} {size}"


def _artifacts(records: Iterable[StepRecord]) -> dict[str, Artifact | None]:
    known: dict[str, Artifact | None] = {}
    for record in records:
        for used in record.inputs.values():
            known.setdefault(used, None)
        for output in record.outputs.values():
            known[output.digest] = output
    return known


def _resolve(subject: str, artifacts: dict[str, Artifact | None]) -> str:
    path = Path(subject)
    wanted = digest_path(path) if path.exists() else subject.lower()
    found = [digest for digest in artifacts if digest.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    raise RecipeError(
        "No artifact of this digest is known." if not found else "Several artifacts start with these digits.",
        where=subject,
        got=wanted if not found else ", ".join(digest[:_SHORT] for digest in found),
        remedy="give a file made by a run with this state folder, or more digits of its SHA-256",
    )


def _node(digest: str, artifacts: dict[str, Artifact | None], depth: int) -> Node:
    artifact = artifacts[digest]
    if artifact is None:
        return Node(digest=digest, kind="source", filename="", size_bytes=None, step="checkpoint", depth=depth)
    return Node(
        digest=digest,
        kind=artifact.kind,
        filename=artifact.filename,
        size_bytes=artifact.size_bytes,
        step=artifact.step,
        depth=depth,
    )


def _walk(
    start: str, neighbours: Callable[[str], Iterable[str]], artifacts: dict[str, Artifact | None]
) -> tuple[Node, ...]:
    depths = {start: 0}
    queue = [start]
    for current in queue:
        for neighbour in neighbours(current):
            if neighbour not in depths:
                depths[neighbour] = depths[current] + 1
                queue.append(neighbour)
    return tuple(_node(digest, artifacts, depths[digest]) for digest in queue[1:])
