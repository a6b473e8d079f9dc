"""The compressing stages and their settings."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, model_validator

from edgemill.recipe.quantizing import Granularity, Quantize
from edgemill.recipe.section import FUNCTION, Section
from edgemill.recipe.training import Optimizer, Training, Tuning


class Family(StrEnum):
    """Built-in student architectures (MLPerf Tiny class)."""

    RESNET8 = "resnet8"
    DS_CNN = "ds_cnn"
    MOBILENET_V1 = "mobilenet_v1"
    MLP_AUTOENCODER = "mlp_autoencoder"


class Student(Section):
    """The smaller model that learns: the checkpoint's graph narrowed, a built-in family, or your own function."""

    width: float | None = Field(
        None, gt=0, le=1, description="factor on the channel counts of the checkpoint's graph, or of the family"
    )
    family: Family | None = Field(None, description="built-in architecture instead of the checkpoint's own graph")
    function: str | None = Field(
        None,
        pattern=FUNCTION,
        description="python:module:function(input_shape, outputs), beside the checkpoint, that gives a tf_keras model",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.function is not None and (self.width is not None or self.family is not None):
            raise ValueError("function excludes width and family")
        if self.function is None and self.width is None and self.family is None:
            raise ValueError("one of width, family, function is needed")
        return self


class DistillMethod(StrEnum):
    """What the student imitates."""

    RESPONSE = "response"
    """The softened outputs (Hinton et al. 2015)."""
    ATTENTION = "attention"
    """Outputs and spatial attention maps (Zagoruyko and Komodakis 2017)."""
    FITNETS = "fitnets"
    """Outputs and a hint layer through a learnt regressor (Romero et al. 2015)."""


class Distill(Training):
    """Train a smaller student on the answers of the checkpoint."""

    student: Student = Field(description="the smaller model: at least one of width, family, function")
    method: DistillMethod = Field(DistillMethod.RESPONSE, description="what the student imitates")
    temperature: float = Field(3.0, gt=0, description="softens the teacher's answers; 1 leaves them as they are")
    soft_weight: float = Field(
        0.7, ge=0, le=1, description="share of the teacher's answers in the loss; the rest are the labels"
    )
    feature_weight: float = Field(50.0, ge=0, description="weight of the feature loss (attention, fitnets)")
    optimizer: Optimizer = Field(Optimizer.SGD, description="how weights are updated")
    learning_rate: float = Field(0.1, gt=0, description="highest learning rate of the cosine schedule")


class PruneMethod(StrEnum):
    """Which weights go."""

    MAGNITUDE = "magnitude"
    """The smallest weights, by a polynomial schedule (Zhu and Gupta 2017)."""
    N_M = "n_m"
    """Two of every four weights along the input channels (2:4)."""


class Prune(Tuning):
    """Set weights to zero and fine-tune the rest."""

    method: PruneMethod = Field(PruneMethod.MAGNITUDE, description="which weights go")
    sparsity: float = Field(
        0.5, gt=0, lt=1, description="share of zero weights per layer at the end; always 0.5 with method n_m"
    )
    epochs: int = Field(4, gt=0, description="passes over the training samples")

    @model_validator(mode="after")
    def _two_of_four(self) -> Self:
        if self.method is PruneMethod.N_M and self.sparsity != 0.5:
            raise ValueError(f"sparsity must be 0.5 with method n_m, which zeroes two of four (found {self.sparsity})")
        return self


class ChannelCost(StrEnum):
    """What removing channels saves."""

    MACS = "macs"
    """Multiplications with additions."""
    BYTES = "bytes"
    """Weights."""
    LATENCY = "latency"
    """Time of every layer in int8, measured in the runtime of the recipe's first target."""


class Importance(StrEnum):
    """How much a channel is worth."""

    L1 = "l1"
    """Sum of the magnitudes of its weights (Li et al. 2017)."""
    BN_GAMMA = "bn_gamma"
    """Its factor in the batch normalization (Liu et al. 2017)."""
    TAYLOR = "taylor"
    """First-order change of the loss without it (Molchanov et al. 2019)."""
    ACTIVATION = "activation"
    """Mean magnitude of its answers (Hu et al. 2016)."""


class Channels(Tuning):
    """Remove whole channels, so that fewer multiplications are left, and fine-tune the rest."""

    keep: float = Field(0.5, gt=0, lt=1, description="share of the cost that stays")
    cost: ChannelCost = Field(ChannelCost.MACS, description="what is counted as cost")
    importance: Importance = Field(Importance.TAYLOR, description="how channels are ranked")
    multiple: int = Field(4, gt=0, description="channel counts are brought to multiples of this")
    rounds: int = Field(3, gt=0, description="channels go in this many rounds, with training after each")
    epochs: int = Field(8, gt=0, description="passes over the training samples, over all rounds")


class CentroidStart(StrEnum):
    """Where the shared weights begin."""

    KMEANS = "kmeans"
    """k-means++ on the weights (Arthur and Vassilvitskii 2007)."""
    LINEAR = "linear"
    """Evenly between the smallest and the largest."""


class Cluster(Tuning):
    """Let the weights of a layer share a few values, so that the file compresses, and fine-tune these values."""

    clusters: int = Field(16, ge=3, le=128, description="different weights of a layer, before each channel's scale")
    start: CentroidStart = Field(CentroidStart.KMEANS, description="where the shared values begin")
    epochs: int = Field(2, gt=0, description="passes over the training samples")
    learning_rate: float = Field(1e-4, gt=0, description="highest learning rate of the cosine schedule")


class Stages(Section):
    """The compressing stages, each optional, always in this order."""

    distill: Distill | None = Field(None, description="train a smaller student; left out: not done")
    channels: Channels | None = Field(None, description="remove whole channels; left out: not done")
    prune: Prune | None = Field(None, description="set weights to zero; left out: not done")
    cluster: Cluster | None = Field(None, description="let weights share values; left out: not done")
    quantize: Quantize = Field(Quantize(), description="number formats that are tried")
    candidates: Literal["all", "last"] = Field(
        "all",
        description="which models are tried on the targets: the checkpoint and the model after every stage, or "
        "only the last, where targets are many or slow to emulate",
    )

    @model_validator(mode="after")
    def _shared_weights_survive(self) -> Self:
        if self.cluster is not None and (reason := undoes_clusters(self.quantize)) is not None:
            raise ValueError(f"cluster: {reason}")
        return self


def undoes_clusters(quantize: Quantize) -> str | None:
    """Why weights that share values would not share them after quantization, None if they do."""
    if quantize.repair:
        return f"quantize.repair ({', '.join(quantize.repair)}) would give the shared weights values of their own"
    if quantize.granularity is Granularity.PER_TENSOR:
        return "quantize.granularity per_tensor would round the shared weights of every channel in another way"
    return None
