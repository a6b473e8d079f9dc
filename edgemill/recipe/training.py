"""Settings shared by everything that trains."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from edgemill.recipe.section import Section


class Augment(Section):
    """Random changes of training images."""

    flip: bool = Field(False, description="mirror left-right")
    shift: int = Field(0, ge=0, description="move by up to this many pixels, edges padded with zeros")
    views: int | None = Field(
        None,
        gt=0,
        description="changes a sample by turns in this many ways, drawn once: the teacher answers each only once; "
        "left out: in a new way in every epoch",
    )

    @property
    def changes(self) -> bool:
        """Whether images are changed at all."""
        return self.flip or self.shift > 0


class Optimizer(StrEnum):
    """How weights are updated."""

    SGD = "sgd"
    """Nesterov momentum 0.9 with a cosine schedule: for training from the start."""
    ADAM = "adam"
    """Adam with a cosine schedule: for fine-tuning."""


class Training(Section):
    """Settings shared by everything that trains."""

    epochs: int = Field(10, gt=0, description="passes over the training samples")
    batch_size: int = Field(128, gt=0, description="samples per update")
    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate of the cosine schedule")
    optimizer: Optimizer = Field(Optimizer.ADAM, description="how weights are updated")
    weight_decay: float = Field(
        0.0,
        ge=0,
        description="every update takes away this much times the learning rate of kernels, not of biases and factors",
    )
    patience: int | None = Field(
        None, gt=0, description="stop after this many epochs without a better validation score"
    )
    augment: Augment = Field(Augment(), description="random changes of training images")


class Tuning(Training):
    """Settings shared by everything that fine-tunes."""

    distill: bool = Field(True, description="train on the checkpoint's answers as well as on the labels")
    temperature: float = Field(3.0, gt=0, description="softens the checkpoint's answers")
    soft_weight: float = Field(0.7, ge=0, le=1, description="share of the checkpoint's answers in the loss")
