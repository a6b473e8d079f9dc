"""The recipe: everything a run needs to know, as one validated value.

The field descriptions are also what the Prefect form shows.
"""

from edgemill.recipe.document import DEFAULT_TARGETS, Recipe, load_recipe, parse_recipe, resolve_paths
from edgemill.recipe.gates import (
    Budget,
    CalibrationErrorGate,
    ClassesGate,
    Direction,
    DropGate,
    FidelityGate,
    FlipsGate,
    Gates,
    MetricGate,
    RiseGate,
    SlicesGate,
    TopKGate,
)
from edgemill.recipe.inputs import Checkpoint, Data, Preprocess, Split, Task
from edgemill.recipe.measuring import Benchmark, Sustained
from edgemill.recipe.section import FUNCTION, Section
from edgemill.recipe.stages import (
    Augment,
    Calibration,
    Distill,
    DistillMethod,
    Family,
    Granularity,
    Optimizer,
    Prune,
    PruneMethod,
    Qat,
    Quantize,
    Scheme,
    Stages,
    Student,
    Training,
)

__all__ = [
    "DEFAULT_TARGETS",
    "FUNCTION",
    "Augment",
    "Benchmark",
    "Budget",
    "Calibration",
    "CalibrationErrorGate",
    "Checkpoint",
    "ClassesGate",
    "Data",
    "Direction",
    "Distill",
    "DistillMethod",
    "DropGate",
    "Family",
    "FidelityGate",
    "FlipsGate",
    "Gates",
    "Granularity",
    "MetricGate",
    "Optimizer",
    "Preprocess",
    "Prune",
    "PruneMethod",
    "Qat",
    "Quantize",
    "Recipe",
    "RiseGate",
    "Scheme",
    "Section",
    "SlicesGate",
    "Split",
    "Stages",
    "Student",
    "Sustained",
    "Task",
    "TopKGate",
    "Training",
    "load_recipe",
    "parse_recipe",
    "resolve_paths",
]
