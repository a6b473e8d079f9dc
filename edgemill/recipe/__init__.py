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
from edgemill.recipe.quantizing import Calibration, Granularity, Mixed, Qat, Quantize, Repair, Scheme, Wider
from edgemill.recipe.searching import Goal, Preset, Search, Space
from edgemill.recipe.section import FUNCTION, Section
from edgemill.recipe.stages import (
    CentroidStart,
    ChannelCost,
    Channels,
    Cluster,
    Distill,
    DistillMethod,
    Family,
    Importance,
    Prune,
    PruneMethod,
    Stages,
    Student,
)
from edgemill.recipe.training import Augment, Optimizer, Training, Tuning

__all__ = [
    "DEFAULT_TARGETS",
    "FUNCTION",
    "Augment",
    "Benchmark",
    "Budget",
    "Calibration",
    "CalibrationErrorGate",
    "CentroidStart",
    "ChannelCost",
    "Channels",
    "Checkpoint",
    "ClassesGate",
    "Cluster",
    "Data",
    "Direction",
    "Distill",
    "DistillMethod",
    "DropGate",
    "Family",
    "FidelityGate",
    "FlipsGate",
    "Gates",
    "Goal",
    "Granularity",
    "Importance",
    "MetricGate",
    "Mixed",
    "Optimizer",
    "Preprocess",
    "Preset",
    "Prune",
    "PruneMethod",
    "Qat",
    "Quantize",
    "Recipe",
    "Repair",
    "RiseGate",
    "Scheme",
    "Search",
    "Section",
    "SlicesGate",
    "Space",
    "Split",
    "Stages",
    "Student",
    "Sustained",
    "Task",
    "TopKGate",
    "Training",
    "Tuning",
    "Wider",
    "load_recipe",
    "parse_recipe",
    "resolve_paths",
]
