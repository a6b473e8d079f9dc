"""What an adapter does, seen from inside the environment of its toolchain; prints one JSON object.

Arguments: kind of file, path of the model, of another model, of a file that is none, of two .npy files with
samples for both.
"""

import json
import sys
from pathlib import Path

import numpy as np

from edgemill.errors import EdgemillError
from edgemill.runtimes import open_model, runtime_of


def refusal(call):
    try:
        call()
    except EdgemillError as error:
        return {"type": type(error).__name__, "text": str(error)}
    return {"type": "none", "text": ""}


kind = sys.argv[1]
first, second, garbage = map(Path, sys.argv[2:5])
x, other_x = np.load(sys.argv[5]), np.load(sys.argv[6])
one, two = open_model(first, kind), open_model(second, kind)
alone = one.predict(x)
kept = one.predict(x[:1])
before = kept.copy()
other = two.predict(other_x)
call = one.prepare(x[:1])
held = call()
held_before = np.array(held)
several = one.prepare(x[:3])
mixed = [np.array(call()), two.predict(other_x[:2]), np.array(call()), np.array(several())]
rows = [one.prepare(x[i : i + 1])()[0] for i in range(len(x))]  # slices: what they are of may be gone
threaded = open_model(first, kind, threads=2)
print(
    json.dumps(
        {
            "predict": alone.tolist(),
            "dtype": alone.dtype.name,
            "other": other.tolist(),
            "single": [one.predict(x[i : i + 1])[0].tolist() for i in range(len(x))],
            "none": list(one.predict(x[:0]).shape),
            "prepared": mixed[0].tolist(),
            "prepared_again": mixed[2].tolist(),
            "prepared_three": mixed[3].tolist(),
            "between": mixed[1].tolist(),
            "predict_stays": bool((kept == before).all()),
            "prepare_stays": bool((np.array(held) == held_before).all()),
            "rows": [row.tolist() for row in rows],
            "threaded": threaded.predict(x).tolist(),
            "wrong_shape": refusal(lambda: one.predict(x[:, :-1])),
            "wrong_rank": refusal(lambda: one.prepare(x[0])),
            "garbage": refusal(lambda: open_model(garbage, kind)),
            "absent": refusal(lambda: open_model(garbage.with_name("nowhere"), kind)),
            "input": list(one.signature.inputs[0].shape),
            "output": list(one.signature.outputs[0].shape),
            "version": runtime_of(kind).version(),
            "kinds": list(runtime_of(kind).kinds),
        }
    )
)
