"""Energy: readers of the sensors that machines and boards have, and joules per inference.

A meter counts joules; `find_meters` finds those that can be read here and says why the others cannot.
"""

from edgemill.benchmark.energy.find import find_meters
from edgemill.benchmark.energy.meter import Covers, EnergyMeter, Found, Unusable

__all__ = ["Covers", "EnergyMeter", "Found", "Unusable", "find_meters"]
