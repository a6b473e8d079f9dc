"""The one training loop, shared by distillation, pruning and quantization-aware training."""
