"""The protocols of Tessera: how programs are written, what their operations do, and how they are read."""

from protocols import operations
from protocols.lowering import functions
from protocols.trace.secret_tensor import SecretTensor, concatenate, stack

__all__ = ["SecretTensor", "concatenate", "functions", "operations", "stack"]
