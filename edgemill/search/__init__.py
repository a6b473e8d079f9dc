"""Search: try many chains of stages, keep the Pareto front of those that hold the budget on validation data.

`presets` says how much is tried, `plan` what the valid chains are, `study` which one is next and what became of
the others, `halving` which student is worth its full training, `front` and `importance` what was learnt,
`record` what the report reads. Nothing here runs a stage.
"""
