"""TensorFlow Lite Micro against LiteRT's reference kernels, in the environment of the toolchain that holds both.

`python -m benchmarks.bit_exact_tflm MODEL.tflite SAMPLES.npy` prints one JSON object: `compared`, `equal` (samples
with the same integers), `rounded` (those that differ by the rounding of FULLY_CONNECTED alone), `max_difference`
(of the outputs as they are stored).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from edgemill.compile.tflm_exact import compare_exactly


def main() -> None:
    """Compare, and print what came of it."""
    found = compare_exactly(Path(sys.argv[1]), np.load(sys.argv[2]))
    difference = np.abs(found.answers.astype(np.int64) - found.reference.astype(np.int64))
    counts = {"compared": found.compared, "equal": found.equal, "rounded": found.rounded}
    print(json.dumps(counts | {"max_difference": int(difference.max())}))


if __name__ == "__main__":
    main()
