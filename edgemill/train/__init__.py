"""The one training loop, shared by distillation, pruning and quantization-aware training."""

from edgemill.recipe import Task

WITHOUT_LABELS = frozenset({Task.UNLABELLED, Task.ANOMALY})
"""Tasks that train on the teacher's answers alone; the labels of anomalies are for judging only."""
