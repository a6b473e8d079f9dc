"""Edgemill next to its peers, on one workload: each peer in its own locked environment, one judge for all."""
