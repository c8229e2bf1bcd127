"""The protocols of Tessera: how programs are written, what their operations do, and how they are read.

Importing this, or any module of it, makes the operations known to programs.
"""

from protocols import operations as _operations  # noqa: F401 - makes them known
from protocols.lowering.plan import plan
from protocols.lowering.precision import PrecisionWarning
from protocols.trace import contraction as _contraction  # noqa: F401 - makes them known to NumPy
from protocols.trace import numpy_comparisons as _numpy_comparisons  # noqa: F401
from protocols.trace import numpy_functions as _numpy_functions  # noqa: F401
from protocols.trace import numpy_norms as _numpy_norms  # noqa: F401
from protocols.trace import numpy_ordering as _numpy_ordering  # noqa: F401
from protocols.trace import numpy_selection as _numpy_selection  # noqa: F401
from protocols.trace.gradients import grad
from protocols.trace.named_functions import RangeWarning
from protocols.trace.secret_tensor import SecretTensor, concatenate, graph_of, leaf, stack

__all__ = [
    "PrecisionWarning",
    "RangeWarning",
    "SecretTensor",
    "concatenate",
    "grad",
    "graph_of",
    "leaf",
    "plan",
    "stack",
]


def __dir__() -> list[str]:
    return __all__
