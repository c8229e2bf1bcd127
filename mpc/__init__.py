"""The base of Tessera: rings, fixed point, sharing, programs and costs.  No input or output."""

from mpc.cost import Cost, cost
from mpc.program import Program

__all__ = ["Cost", "Program", "cost"]
