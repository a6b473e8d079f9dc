"""Streaming calibrators: what the values of a tensor are like, and in which range to quantize them.

A graph is run batch by batch with its activations as outputs (`activations.py`), in pieces that fit into a
given memory (`memory.py`). Values go into an accumulator whose size does not depend on how many there are
(`extremes.py`, `histogram.py`), and a range is computed from the accumulator alone (`percentile.py`,
`entropy.py`, `squared_error.py`).
"""
