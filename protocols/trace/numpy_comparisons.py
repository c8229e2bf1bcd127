"""NumPy's comparisons, called with secret tensors: results are secret tensors of 0 and 1."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from protocols.trace.numpy_protocol import registered
from protocols.trace.unknown import Unknown


def _compared(test: Callable[[Any, Any], Any], reflected: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """``test``, which a secret tensor is asked for whichever operand it is: NumPy's arrays would ask NumPy again."""
    return lambda x, y: test(x, y) if isinstance(x, Unknown) else reflected(y, x)


registered(np.less)(_compared(operator.lt, operator.gt))
registered(np.less_equal)(_compared(operator.le, operator.ge))
registered(np.greater)(_compared(operator.gt, operator.lt))
registered(np.greater_equal)(_compared(operator.ge, operator.le))
registered(np.equal)(_compared(operator.eq, operator.eq))
registered(np.not_equal)(_compared(operator.ne, operator.ne))
