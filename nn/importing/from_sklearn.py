"""A fitted estimator of scikit-learn, LightGBM or XGBoost as a model.  None is imported: the owner's process has it."""

from __future__ import annotations

from typing import Any

from nn.importing import sklearn_import
from nn.importing.from_torch import TOLERANCE
from nn.importing.samples import Samples
from nn.interface import NOTHING_SAID, Interface, as_read
from nn.model import Model


def from_sklearn(
    estimator: Any,
    samples: Samples | None = None,
    *,
    tolerance: float = TOLERANCE,
    interface: Interface = NOTHING_SAID,
) -> Model:
    """What a fitted estimator, or a pipeline of them, computes of rows (N, features), in layers of ``nn``.

    The model gives ``predict_proba`` of classifiers that have it, ``decision_function`` of those that have not (of two
    classes: minus it, and it), ``predict`` of regressors as (N, outputs), ``transform`` of what only transforms.  Trees
    end in the same leaf as the estimator's for all multiples of 2^-16, to which inputs are rounded, and for all numbers
    of ``samples`` unless two of them are rounded to the same.

    ``samples`` (rows, a data frame) and ``tolerance`` are as for ``from_torch``: estimator and model are compared on
    them.  What the model says of itself is ``interface``; where that says nothing, classes are called as in
    ``classes_``, and columns as in ``feature_names_in_``, or x0, x1, ..., each with the power of two that bounds its
    samples.  Without samples nothing is compared, and a RangeWarning says so.  Nothing is read from files or unpickled.

    Raises UnsupportedError naming each part that has no counterpart, the reason and what to do instead; UsageError for
    what is not fitted; RangeError for values that do not fit; DiffersFromSource, with the first layer that differs.
    """
    return sklearn_import.load(estimator, samples, tolerance, as_read(interface))
