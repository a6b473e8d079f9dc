"""Step `channels.geometry`: shapes of the layers with a kernel, so that their latency can be measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from edgemill.channels.groups import find_groups
from edgemill.channels.latency_steps import GeometrySettings
from edgemill.channels.rounds import load
from edgemill.channels.trace import trace
from edgemill.data.dataset import Dataset
from edgemill.step import InputFile, Outputs, StepContext


def run(settings: GeometrySettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """List the layers.

    Args:
        settings: none.
        inputs: `keras`, and `data` for the sizes that the model leaves open.
        context: not used.

    Returns:
        fact `layers`: the fields of `edgemill.channels.cost.LayerShape` of each.
    """
    book = trace(load(inputs["keras"].path), Dataset(inputs["data"].path).sample_shape)
    return Outputs(facts={"layers": [asdict(use.shape) for use in find_groups(book).uses]})
