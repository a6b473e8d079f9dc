"""PTQ repair: accuracy lost by int8 is won back without training.

On the prepared float graph, before calibration: `equalization`, `smoothquant`. On the QDQ graph, with the float graph
at hand: `mse_scales`, `adaround`, `bias_correction`. `sequence` applies them in this order and measures each.
"""
