"""Step `channels.geometry`: shapes of the layers with a kernel, so that their latency can be measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from edgemill.channels.geometry import layer_shapes
from edgemill.channels.latency_steps import GeometrySettings
from edgemill.step import InputFile, Outputs, StepContext
from edgemill.tf import keras


def run(settings: GeometrySettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """List the layers.

    Args:
        settings: none.
        inputs: `keras`.
        context: not used.

    Returns:
        fact `layers`: the fields of `edgemill.channels.cost.LayerShape` of each.
    """
    model = keras.models.load_model(inputs["keras"].path, compile=False)
    return Outputs(facts={"layers": [asdict(named.shape) for named in layer_shapes(model)]})
