"""Share of samples whose label is among the k highest scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.errors import RecipeError
from edgemill.validate.pair import Checked, Pair, budget_of, renamed
from edgemill.validate.paired_proportions import compare_binary
from edgemill.validate.question import Question
from edgemill.validate.scores import class_count, flat_rows


def top_k_hits(outputs: NDArray[Any], labels: NDArray[Any], k: int) -> NDArray[np.float64]:
    """1 where the label is among the k highest scores, else 0; float64 (N,).

    Of equal scores the class with the lower number comes first, so that k = 1 is the accuracy.

    Args:
        outputs: (N, classes).
        labels: int (N,).
        k: answers that count.
    """
    flat, wanted = flat_rows(outputs), labels.reshape(-1, 1).astype(np.int64)
    own = np.take_along_axis(flat, wanted, axis=1)
    ahead = np.count_nonzero(flat > own, axis=1)
    ahead += np.count_nonzero((flat == own) & (np.arange(flat.shape[1]) < wanted), axis=1)
    return np.asarray(ahead < k, dtype=np.float64)


def check_top_k(question: Question, pair: Pair, k: int) -> Checked:
    """Paired test of the top-k accuracy, as of the accuracy itself.

    Raises:
        RecipeError: the model has no more than k classes, so every answer would count.
    """
    if k >= class_count(pair.baseline):
        raise RecipeError(
            "With so few classes every label is among the best.",
            where="gates.top_k.k",
            expected=f"below {class_count(pair.baseline)}, the number of classes",
            got=str(k),
            remedy="lower k, or leave out gates.top_k",
        )
    usual, ours = (top_k_hits(outputs, pair.truth, k) for outputs in (pair.baseline, pair.variant))
    return Checked(renamed(compare_binary(usual, ours, budget_of(question)), question))
