"""What the tests of emulation share."""

from __future__ import annotations

import pytest

from edgemill.targets.spec import WeightType
from tests.emulate.models import as_input, bright_data, bright_net, quantized


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return bright_data(tmp_path_factory.mktemp("bright") / "data")


@pytest.fixture(scope="session")
def fp32(tmp_path_factory):
    return as_input(bright_net(tmp_path_factory.mktemp("fp32") / "net.onnx"), "onnx")


@pytest.fixture(scope="session")
def forms(tmp_path_factory, fp32, data):
    """The network as uint8 x int8, with 7-bit weights, and as uint8 x uint8."""
    changes = {"u8s8": {}, "reduce_range": {"reduce_range": True}, "u8u8": {"weights": WeightType.UINT8}}
    return {name: quantized(tmp_path_factory.mktemp(name), fp32, data, **change) for name, change in changes.items()}
