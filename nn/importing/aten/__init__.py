"""What each of torch's own operations becomes.  Needs torch."""

from nn.importing.aten import arithmetic as _arithmetic  # noqa: F401 - makes them known
from nn.importing.aten import choosing as _choosing  # noqa: F401
from nn.importing.aten import comparing as _comparing  # noqa: F401
from nn.importing.aten import layers as _layers  # noqa: F401
from nn.importing.aten import norms as _norms  # noqa: F401
from nn.importing.aten import recurrent as _recurrent  # noqa: F401
from nn.importing.aten import sampling as _sampling  # noqa: F401
from nn.importing.aten import shapes as _shapes  # noqa: F401
from nn.importing.aten import windows as _windows  # noqa: F401
from nn.importing.aten.table import OPERATORS

__all__ = ["OPERATORS"]
