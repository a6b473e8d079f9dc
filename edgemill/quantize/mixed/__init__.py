"""Mixed precision: int8 everywhere but in the few operators that lose accuracy in it.

`groups` cuts a graph into what must change together, `rank` sorts by what int8 costs, `search` looks for
the fewest groups that must stay float, `judge` asks the gate, `wider` knows the formats, `step` is the body.
"""
