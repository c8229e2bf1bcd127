"""The base of Tessera: the field, fixed point, sharing, secret tensors, programs and costs.  No input or output."""

from mpc.cost import Cost, cost
from mpc.program import Program
from mpc.secret_tensor import SecretTensor, concatenate, stack

__all__ = ["Cost", "Program", "SecretTensor", "concatenate", "cost", "stack"]
