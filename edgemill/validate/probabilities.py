"""Class probabilities from a classifier's outputs, whatever form they have."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from edgemill.validate.scores import binary_threshold, flat_rows


def probabilities(outputs: NDArray[Any], baseline: NDArray[Any]) -> NDArray[np.float64]:
    """Probability of every class, float64 (N, K), K = 2 for a single output.

    Outputs are taken as they are where all of the baseline's lie in 0..1, so the rows of independent
    sigmoids need not sum to one; else they are logits. The form is the baseline's: a variant that
    answers in another form is not excused.

    Args:
        outputs: (N, ...).
        baseline: (N, ...), decides the form.
    """
    flat = np.asarray(flat_rows(outputs), dtype=np.float64)
    logits = binary_threshold(baseline) == 0
    if flat.shape[1] == 1:
        positive = special.expit(flat) if logits else flat
        return np.hstack([1 - positive, positive])
    return np.asarray(special.softmax(flat, axis=1)) if logits else flat
