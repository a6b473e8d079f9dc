"""What following the channels through a model has found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from edgemill.channels.atoms import Atoms, Indices
from edgemill.channels.cost import LayerShape


class Role(StrEnum):
    """What an axis of a weight has to do with the channels along it."""

    WRITES = "writes"
    """They come out of this kernel."""
    FILTERS = "filters"
    """Each passes through a kernel of its own (depthwise)."""
    READS = "reads"
    """They go into this kernel and are summed there: nothing of them is left behind it."""
    NORMALIZES = "normalizes"
    """The factor of a batch normalization."""
    FOLLOWS = "follows"
    """Biases, statistics, slopes."""


@dataclass(frozen=True)
class Cut:
    """One axis of one weight, to be cut where channels go.

    Attributes:
        layer: tf_keras layer.
        attribute: name of the variable in the layer.
        axis: of the variable, from the front.
        role: see `Role`.
        atoms: channel number of every index of the axis.
    """

    layer: Any
    attribute: str
    axis: int
    role: Role
    atoms: Indices

    @property
    def variable(self) -> Any:
        """The weight."""
        return getattr(self.layer, self.attribute)


@dataclass(frozen=True)
class Use:
    """One call of a layer with a kernel: what it costs.

    Attributes:
        layer: tf_keras layer.
        shape: with all its channels.
        inputs: channel numbers that are counted as inputs.
        outputs: channel numbers that are counted as outputs.
        groups: of the convolution; each kernel sees this part of the inputs only.
    """

    layer: Any
    shape: LayerShape
    inputs: Indices
    outputs: Indices
    groups: int = 1


@dataclass(frozen=True)
class Flow:
    """Where the channels of a tensor lie.

    Attributes:
        axis: of the tensor, batch counted.
        atoms: channel number of every index of the axis.
    """

    axis: int
    atoms: Indices


class CannotFollowError(Exception):
    """A layer's channels cannot be followed; the text ends "its channels are left whole because"."""


class Book:
    """Collects atoms, cuts and uses while a model is walked."""

    def __init__(self) -> None:
        self.atoms = Atoms()
        self.cuts: list[Cut] = []
        self.uses: list[Use] = []
        self.outputs: dict[int, Indices] = {}
        """Channels that come out of a layer, by the id of the layer: what its configuration has to say."""
        self.axes: dict[int, int] = {}
        """Axis on which they lie, batch counted, by the id of the layer."""
        self.left: set[int] = set()
        """Ids of layers whose channels could not be followed."""
        self._known: dict[tuple[int, str, int], Indices] = {}

    def cut(self, layer: Any, attribute: str, axis: int, role: Role, channels: Indices) -> None:
        """Note that an axis of a weight lies along these channels; of a shared layer, along all that were noted."""
        if getattr(layer, attribute) is None:
            return
        key = (id(layer), attribute, axis)
        if key in self._known:
            self.atoms.join(self._known[key], channels)
        else:
            self._known[key] = channels
            self.cuts.append(Cut(layer, attribute, axis, role, channels))

    def written(self, layer: Any, attribute: str, axis: int) -> Indices:
        """Channels that come out of a kernel along its axis: new, or those of an earlier call of the layer."""
        known = self._known.get((id(layer), attribute, axis))
        if known is None:
            known = self.atoms.new(int(getattr(layer, attribute).shape[axis]))
            self.cut(layer, attribute, axis, Role.WRITES, known)
        return known

    def comes_out(self, layer: Any, flow: Flow) -> None:
        """Note which channels a layer answers with, and where.

        Raises:
            CannotFollowError: another call of the layer gave others.
        """
        known = self.outputs.setdefault(id(layer), flow.atoms)
        if self.axes.setdefault(id(layer), flow.axis) != flow.axis or known.shape != flow.atoms.shape:
            raise CannotFollowError(f"{layer.name} ({type(layer).__name__}) is shared between different shapes")
        self.atoms.join(known, flow.atoms)

    def freeze_layer(self, layer: Any, reason: str) -> None:
        """Never cut a layer, and use it again as it is."""
        self.left.add(id(layer))
        for cut in self.cuts:
            if cut.layer is layer:
                self.atoms.freeze(cut.atoms, reason)
        if id(layer) in self.outputs:
            self.atoms.freeze(self.outputs[id(layer)], reason)


class Value:
    """A tensor with its channels.

    Not a dataclass, so that tf.nest takes it for a leaf.
    """

    def __init__(self, tensor: Any, flow: Flow) -> None:
        self.tensor, self.flow = tensor, flow

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor, batch counted."""
        return tuple(int(size) for size in self.tensor.shape)

    @property
    def last(self) -> bool:
        """Whether the channels lie on the last axis."""
        return self.flow.axis == len(self.shape) - 1

    def on_last(self, layer: Any) -> Indices:
        """The channels.

        Raises:
            CannotFollowError: they are on another axis than the last.
        """
        if not self.last:
            raise CannotFollowError(f"{layer.name} ({type(layer).__name__}) works across them")
        return self.flow.atoms


def along_last(tensor: Any, channels: Indices) -> Flow:
    """Channels on the last axis of a tensor."""
    return Flow(max(len(tensor.shape) - 1, 0), channels)
