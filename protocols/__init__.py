"""The protocols of Tessera: how programs are written, what their operations do, and how they are read.

Importing this, or any module of it, makes the operations known to programs.
"""

from protocols import operations as _operations  # noqa: F401 - makes them known
from protocols.lowering.plan import plan
from protocols.lowering.planner import Objective
from protocols.trace.secret_tensor import RangeWarning, SecretTensor, concatenate, graph_of, leaf, stack

__all__ = ["Objective", "RangeWarning", "SecretTensor", "concatenate", "graph_of", "leaf", "plan", "stack"]


def __dir__() -> list[str]:
    return __all__
