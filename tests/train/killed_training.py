"""A training with dropout and augmentation, as a function and as a child process that can be killed.

Arguments of the process: data folder, working folder, epochs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgemill.data.dataset import Dataset
from edgemill.recipe import Augment, Task, Training
from edgemill.tf import fresh
from edgemill.train.loop import Objective, train
from tests.train.digits import context, convnet


def run(data: Path, work: Path, epochs: int):
    """History and final weights."""
    fresh(5)
    model = convnet(dropout=0.3)
    settings = Training(epochs=epochs, batch_size=32, learning_rate=0.003, augment=Augment(shift=1))
    history = train(model, Dataset(data), settings, Objective(Task.CLASSIFICATION, None), context(work))
    return history, model.get_weights()


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
