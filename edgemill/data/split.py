"""Which sample goes into which split."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgemill.data.dataset import SplitName
from edgemill.errors import DataError, InvariantError
from edgemill.recipe import Split

Indices = NDArray[np.int64]


def split_indices(rule: Split, available: Mapping[SplitName, int]) -> dict[SplitName, tuple[SplitName, Indices]]:
    """Positions of the samples of every split.

    One permutation p = numpy.random.default_rng(seed).permutation(N) of the source's own training
    part is cut from its end: p = train | calibration | validation | test. A split that the source
    itself separates is used whole and takes nothing off p. With `calibration_within_validation`,
    calibration is the front of validation.

    Args:
        rule: the recipe's `data.split`.
        available: number of samples of each part of the source; `train` is always there.

    Returns:
        For every split, the part of the source it comes from and the positions in that part.

    Raises:
        DataError: fewer samples than asked, no test samples, or a number that contradicts a split
            of the source.
    """
    inside = rule.calibration_within_validation
    asked = {SplitName.VALIDATION: rule.validation, SplitName.CALIBRATION: rule.calibration, SplitName.TEST: rule.test}
    if inside and SplitName.CALIBRATION in available:
        raise DataError(
            "The source has its own calibration split.",
            where="data.split.calibration_within_validation",
            remedy="remove the key",
        )
    for split, count in asked.items():
        if split in available and count not in (None, available[split]):
            raise DataError(
                f"The source has its own {split} split, which is used whole.",
                where=f"data.split.{split}",
                expected=f"{available[split]}",
                got=f"{count}",
                remedy=f"set data.split.{split}: {available[split]}",
            )
    if rule.test is None and SplitName.TEST not in available:
        raise DataError(
            "There are no test samples.",
            where="data.split.test",
            got="the source has no test set of its own and the recipe takes none off",
            remedy="set data.split.test to a number of samples",
        )
    total = available[SplitName.TRAIN]
    cut = {
        split: count
        for split in (SplitName.CALIBRATION, SplitName.VALIDATION, SplitName.TEST)
        if split not in available and not (inside and split is SplitName.CALIBRATION) and (count := asked[split])
    }
    needed = sum(cut.values())
    if needed >= total:
        raise DataError(
            "The source has fewer samples than the splits need.",
            where="data.split",
            expected=f"more than {needed} samples ({', '.join(f'{n} {s}' for s, n in cut.items())}, the rest train)",
            got=f"{total} samples",
            remedy="ask for fewer, or add data",
        )
    order = np.random.default_rng(rule.seed).permutation(total)
    result: dict[SplitName, tuple[SplitName, Indices]] = {
        split: (split, np.arange(count)) for split, count in available.items() if split is not SplitName.TRAIN
    }
    position = total - needed
    result[SplitName.TRAIN] = (SplitName.TRAIN, order[:position])
    for split, count in cut.items():
        result[split] = (SplitName.TRAIN, order[position : position + count])
        position += count
    taken = np.concatenate([indices for part, indices in result.values() if part is SplitName.TRAIN])
    if len(taken) != total or len(np.unique(taken)) != total:
        raise InvariantError("The splits do not cover the source once.", got=f"{len(taken)} positions of {total}")
    if inside:
        part, indices = result[SplitName.VALIDATION]
        if rule.calibration > len(indices):
            raise DataError(
                "There are fewer validation samples than calibration samples taken from them.",
                where="data.split.calibration",
                expected=f"at most {len(indices)}",
                got=f"{rule.calibration}",
            )
        result[SplitName.CALIBRATION] = (part, indices[: rule.calibration])
    return result
