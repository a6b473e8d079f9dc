"""What host and guest say to each other: one JSON object a line, arrays in .npy files. Standard library only.

Requests have `id`, `op` and the fields of the operation; answers have the same `id` and either `ok` with the
operation's answer or `error` as `EdgemillError.to_dict` gives it.

`hello`    {} -> {protocol, machine, python, features, versions}
`predict`  {model, kind, exact, threads, x, out} -> {samples}; writes float32 (N, *output_shape) to `out`
`trace`    {model, kind, exact, threads, x, out} -> {names}; writes one array a tensor, `out`/INDEX.npy
"""

from __future__ import annotations

PROTOCOL = 1

HWCAP = (
    *("fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "atomics", "fphp", "asimdhp", "cpuid"),
    *("asimdrdm", "jscvt", "fcma", "lrcpc", "dcpop", "sha3", "sm3", "sm4", "asimddp", "sha512", "sve", "asimdfhm"),
    *("dit", "uscat", "ilrcpc", "flagm", "ssbs", "sb", "paca", "pacg"),
)
"""Names of the bits of AT_HWCAP on arm64, lowest first (Linux, arch/arm64/include/uapi/asm/hwcap.h)."""

HWCAP2 = (
    *("dcpodp", "sve2", "sveaes", "svepmull", "svebitperm", "svesha3", "svesm4", "flagm2", "frint", "svei8mm"),
    *("svef32mm", "svef64mm", "svebf16", "i8mm", "bf16", "dgh", "rng", "bti", "mte"),
)
"""The same of AT_HWCAP2."""
