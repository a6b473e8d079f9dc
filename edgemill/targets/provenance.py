"""Where a figure comes from (design rule 7), so that figures of different source are never mixed unmarked.

`measured:native`
    taken on the target's own architecture, on a CPU that calculates as the target's does.
`proxy:x86_64-host`
    taken on a machine of another architecture or generation whose kernels are of the same kind: an
    indication.
`unlike:x86_64-host`
    taken on a machine that lacks fast kernels for the target's arithmetic: says nothing of the device.

These are the labels of times. By what the answers of a model were calculated is said by
`edgemill.emulate.machine.how_executed`.
"""

from __future__ import annotations

from collections.abc import Set

from edgemill.targets.cpu import architecture, cpu_features
from edgemill.targets.spec import ActivationType, Target

NATIVE = "measured:native"


def difference(target: Target, host_arch: str, features: Set[str] | None = None) -> str:
    """Why a machine does not calculate as a target does; empty where it does.

    Args:
        target: the device class.
        host_arch: `platform.machine()` of the machine.
        features: of its CPU, see `cpu_features`; None: this machine's.
    """
    host, wanted = architecture(host_arch), architecture(target.arch)
    if host != wanted:
        return f"this machine is {host}, the target {wanted}"
    return target.cpu.refusal(cpu_features() if features is None else features)


def provenance(target: Target, host_arch: str, features: Set[str] | None = None) -> str:
    """Label of times that were taken on this host for a target.

    Args:
        target: the device class that the figure is for.
        host_arch: `platform.machine()` of the machine that measured.
        features: of its CPU, see `cpu_features`; None: this machine's.
    """
    if not difference(target, host_arch, features):
        return NATIVE
    host = architecture(host_arch)
    return f"{'proxy' if _comparable(target, host) else 'unlike'}:{host}-host"


def _comparable(target: Target, host: str) -> bool:
    # onnxruntime has no fast kernels for int8 x int8 on x86: the same integer graph that is quick on
    # ARM took 8 times as long as fp32 on an AVX512-VNNI machine, where uint8 x int8 took 0.4 times.
    signed = target.int8.activations is ActivationType.INT8
    return not (target.runtime.name == "onnxruntime" and signed and host == "x86_64")
