"""A search whose objective is a formula: fast, smooth, and with a budget that some chains break."""

import sys
import time
from pathlib import Path

from edgemill.recipe import Goal, Search, Stages
from edgemill.recipe.quantizing import Quantize, Scheme
from edgemill.search.knobs import Knobs
from edgemill.search.plan import Plan, resolve
from edgemill.search.study import Outcome, SearchStudy, Subject

CHECKPOINT = "c" * 64


def plan(trials: int = 20, **space: tuple[float, ...]) -> Plan:
    """The default preset's space, or the given one, in two number formats."""
    search = Search.model_validate({"trials": trials, "space": space})
    schemes = (Scheme.INT8_STATIC, Scheme.INT8_QAT)
    return resolve(search, Stages(quantize=Quantize(schemes=schemes)), trainable=True)


def outcome(knobs: Knobs) -> Outcome:
    """Latency falls with the width, bytes with everything; so does the score."""
    shared = 0.35 + 0.006 * knobs.clusters if knobs.clusters else 1.0
    latency = 0.4 * knobs.width**1.6 * (1.1 if knobs.scheme is Scheme.INT8_QAT else 1)
    size = 0.25 * knobs.width**2 * (1 - 0.6 * knobs.sparsity) * shared
    drop = 0.006 * (1 - knobs.width) + 0.004 * knobs.sparsity + (0.001 if knobs.clusters else 0)
    drop -= 0.002 if knobs.scheme is Scheme.INT8_QAT else 0
    return Outcome({Goal.LATENCY: latency, Goal.COMPRESSED_BYTES: size}, drop - 0.005, 0.93 - drop)


def run(study: SearchStudy, most: int | None = None) -> list[str]:
    """Ask and tell to the end; the names in order."""
    names = []
    while (most is None or len(names) < most) and (trial := study.ask()) is not None:
        study.tell(trial, outcome(trial.knobs))
        names.append(trial.name)
    return names


def main(folder: str, hang_at: int) -> None:
    """Search, and hang for ever in the middle of one trial."""
    study = SearchStudy(Path(folder), plan(), Subject(CHECKPOINT), seed=3)
    while (trial := study.ask()) is not None:
        print(f"began {trial.number} {trial.name}", flush=True)
        if trial.number == hang_at:
            time.sleep(600)
        study.tell(trial, outcome(trial.knobs))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
