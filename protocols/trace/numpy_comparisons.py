"""NumPy's comparisons, called with secret tensors: results are secret tensors of 0 and 1."""

from __future__ import annotations

import operator

import numpy as np

from protocols.trace.numpy_protocol import either, registered

registered(np.less)(either(operator.lt, operator.gt))
registered(np.less_equal)(either(operator.le, operator.ge))
registered(np.greater)(either(operator.gt, operator.lt))
registered(np.greater_equal)(either(operator.ge, operator.le))
registered(np.equal)(either(operator.eq, operator.eq))
registered(np.not_equal)(either(operator.ne, operator.ne))
