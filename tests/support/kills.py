"""Lives of a run that end by SIGKILL at moments drawn on the timeline of an undisturbed run."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgemill.store import Store
from tests.support.runs import SHORT, Finished, optimize, start, survivors

TRIES = 10
MEASUREMENT = "benchmark.latency"
STEPS = {
    "data and ingest": ("data.", "ingest."),
    "training and quantizing": ("distill.", "prune.", "quantize.", "compile.", "validate.screen"),
    "measuring": (MEASUREMENT,),
}
KILLS = {  # of each folder
    "start": 1,
    "data and ingest": 1,
    "training and quantizing": 2,
    "measuring": 2,
    "gate": 1,
    "delivery": 3,
}


@dataclass(frozen=True)
class Moment:
    """So long after an event of a life.

    The event is the end of its first so many steps, for the gate of its first so many measurements
    (how many steps follow them depends on what they find), and for the delivery its beginning.
    """

    phase: str
    steps: int
    delay_s: float

    def __str__(self) -> str:
        event = {"gate": f"measurement {self.steps}", "delivery": "its beginning"}.get(self.phase, f"step {self.steps}")
        return f"{self.phase}, {self.delay_s:.2f} s after {event}"

    def reached(self, home: Path, log: Path, began: float) -> bool:
        """Whether the event of a life that began then, in seconds since the epoch, is there."""
        if self.phase == "delivery":
            return delivering(home, began)
        steps = finished_steps(log)
        return (steps.count(MEASUREMENT) if self.phase == "gate" else len(steps)) >= self.steps


@dataclass
class Timeline:
    """When each step of the undisturbed run ended, when its delivery began, and when it ended itself, in seconds."""

    steps: list[tuple[float, str]] = field(default_factory=list)
    delivery: float = 0.0
    end: float = 0.0

    def spans(self) -> dict[str, tuple[float, float]]:
        """Begin and end of every phase."""
        last = {
            "start": self.steps[0][0] / 2,  # the first step takes the rest
            **{phase: max(at for at, step in self.steps if step.startswith(names)) for phase, names in STEPS.items()},
            "gate": self.delivery,
            "delivery": self.end,
        }
        return dict(zip(last, itertools.pairwise((0.0, *last.values())), strict=True))

    def moment(self, phase: str, at: float) -> Moment:
        """What a time of the undisturbed run is in any other."""
        if phase == "delivery":
            return Moment(phase, 0, at - self.delivery)
        done = [stamp for stamp, step in self.steps if stamp <= at and (phase != "gate" or step == MEASUREMENT)]
        return Moment(phase, len(done), at - (done[-1] if done else 0.0))

    def draw(self, rng: random.Random) -> list[Moment]:
        """Moments for the lives of one state folder, in the order of the run, so that each life gets further."""
        spans = self.spans()
        drawn = [(rng.uniform(*spans[phase]), phase) for phase, count in KILLS.items() for _ in range(count)]
        return [self.moment(phase, at) for at, phase in sorted(drawn)]


def delivering(home: Path, began: float) -> bool:
    """Whether a life that began then, in seconds since the epoch, has come to write bundles."""
    folder = home / "runs" / "digits" / "bundles"
    return folder.exists() and folder.stat().st_mtime >= began


def finished_steps(log: Path) -> list[str]:
    """Steps that are through, run or found done, in the order of the log."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return [line.split()[1] for line in lines if line.startswith(("done ", "cached "))]


@dataclass
class Survived:
    """A state folder after its kills, and after the run that was let through."""

    home: Path
    result: Finished
    kills: list[str]
    faults: list[str]
    embedded: bool


def records_on_disk(home: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every record: both change if one is written again."""
    paths = home.glob("steps/*/*.json")
    return {path.name: (status.st_ino, status.st_mtime_ns) for path in paths if (status := path.stat())}


def live_and_die(home: Path, moments: list[Moment], rng: random.Random, services: dict[str, str]) -> Survived:
    kills: list[str] = []
    faults: list[str] = []
    known: dict[str, tuple[int, int]] = {}
    for number, moment in enumerate(moments):
        at = moment
        for _ in range(TRIES):
            if _life(home, at, home.parent / f"{home.name}-{number}.log", faults, services):
                kills.append(str(at))
                break
            # it had less to do than the undisturbed run: a kill before it did something else
            at = Moment(at.phase, at.steps, rng.uniform(0, at.delay_s / 2))
        faults += [f"{at}: still runs: {line}" for line in survivors(home, patience_s=10)]
        now = records_on_disk(home)
        faults += [f"{at}: step {key} was written again" for key in known if now.get(key) != known[key]]
        faults += [f"{at}: {fault}" for fault in damage(home)]
        known = now
    result = optimize(home, *SHORT, **services)
    now = records_on_disk(home)
    faults += [f"the last life: step {key} was written again" for key in known if now.get(key) != known[key]]
    return Survived(home, result, kills, faults, embedded=not services)


def _life(home: Path, moment: Moment, log: Path, faults: list[str], services: dict[str, str]) -> bool:
    """Whether it was killed, and had not ended before."""
    began = time.time()
    process = start(home, *SHORT, log=log, **services)
    try:
        while process.poll() is None and not moment.reached(home, log, began):
            time.sleep(0.02)
        deadline = time.monotonic() + moment.delay_s
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            return process.wait() == -signal.SIGKILL
        if process.returncode != 0:
            faults.append(f"{moment}: a life ended by itself with {process.returncode}: {log.read_text()[-2000:]}")
        return False
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def damage(home: Path) -> Iterator[str]:
    """Whatever a kill may not leave: a record that is no record, or an output that is not whole."""
    store = Store(home)
    records = list(store.records())
    if len(records) != len(list(home.glob("steps/*/*.json"))):
        yield "a record cannot be read"
    for record in records:
        for name, output in record.outputs.items():
            if not store.intact(output):
                yield f"output {name} of {record.step} {record.key} is damaged"


def watch_undisturbed(home: Path) -> Timeline:
    """Let a run through, and write down when what happened."""
    log, timeline, began = home / "first.log", Timeline(), time.time()
    process = start(home, *SHORT, log=log)
    while process.poll() is None:
        now = time.time() - began
        timeline.steps += [(now, step) for step in finished_steps(log)[len(timeline.steps) :]]
        if not timeline.delivery and delivering(home, began):
            timeline.delivery = now
        time.sleep(0.02)
    timeline.end = time.time() - began
    assert process.returncode == 0, log.read_text()
    return timeline
