"""Models on their way from the checkpoint to a target, and the candidates they become."""

from __future__ import annotations

from collections.abc import Mapping

from edgemill.artifact import Artifact, Frozen
from edgemill.recipe import Scheme

CHECKPOINT = "checkpoint"
FP32 = "fp32"


class Link(Frozen):
    """One compressing step that a model has been through.

    Attributes:
        stage: distill, channels, prune or cluster.
        step: that ran.
        title: for people.
        model: name of the model that it made.
    """

    stage: str
    step: str
    title: str
    model: str


class Model(Frozen):
    """A model after zero or more compressing stages, in every form that is at hand.

    Attributes:
        name: `checkpoint`, or the stages it went through, e.g. `distill-prune`.
        files: artifacts by form: onnx, keras, saved_model, tflite.
    """

    name: str
    chain: tuple[Link, ...]
    files: Mapping[str, Artifact]


def candidate_name(model: str, scheme: Scheme | None) -> str:
    """Name of a chain for people: `distill-prune-int8_static`."""
    numbers = scheme.value if scheme is not None else FP32
    return numbers if model == CHECKPOINT else f"{model}-{numbers}"
