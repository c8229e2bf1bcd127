"""A fitted estimator into a model: its parts one after the other, and compared with it.  ``nn.from_sklearn``."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from mpc.errors import ShapeError, UsageError, printable
from nn.architecture import Architecture, Step
from nn.columns import Columns
from nn.importing import sklearn_forests
from nn.importing.blockers import Blocker, refuse, refused, said_by
from nn.importing.compared import checked
from nn.importing.samples import Samples, read_samples
from nn.importing.sklearn_forests import FORESTS
from nn.importing.sklearn_layers import LAYERS, SCALERS
from nn.importing.sklearn_trees import Read, check_grid
from nn.importing.written import Fitted, Written
from nn.interface import Classes, Interface, Label
from nn.layer import Array
from nn.layers import BatchNorm1d, Linear
from nn.model import Model
from nn.tables import MAX_NAME, Column, TableInput
from nn.trees import GRID_BITS
from protocols import RangeWarning

LIBRARIES = ("sklearn", "lightgbm", "xgboost")
SEARCHES = ("GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV")
MARGINS = ("SVC", "NuSVC")
"""Whose probabilities, where there are any, are another model's."""
INSTEAD_OF = "take what docs/models.md names, or export it to ONNX"
WIDEST = 2.0**20
"""Inputs lie in [-2^20, 2^20], as far as nobody says otherwise."""


def load(estimator: Any, samples: Samples | None, tolerance: float, interface: Interface) -> Model:
    """``nn.from_sklearn`` does this; see there."""
    if not 0 < tolerance < 1:
        raise UsageError(f"a tolerance is a part of the results' scale, above 0 and below 1, not {tolerance!r}")
    parts = _parts(estimator)
    names, fitted = list(parts), list(parts.values())
    kind = f"the {type(estimator).__name__}"
    features = int(fitted[0].n_features_in_)
    batch = None if samples is None else read_samples(samples)
    if batch is not None and (batch.ndim != 2 or batch.shape[1] != features):
        raise ShapeError(f"{kind} takes rows of {features} features, and samples have shape {batch.shape}")
    interface = _interface(interface, fitted, batch)
    low, high = _range(interface, batch)
    read = Read(np.zeros((0, features)) if batch is None else batch)
    net, blockers, before = Written(), list[Blocker](), list[Fitted]()
    trees = type(fitted[-1]).__name__ in FORESTS
    for number, (name, part) in enumerate(parts.items()):
        net.stage = name
        what = type(part).__name__
        try:
            if what in FORESTS and number == len(before):
                sklearn_forests.convert(part, net, before, read, low, high)
            elif what in FORESTS:
                raise refused(f"it comes after {names[number - 1]!r}, whose results are rounded", "train it on columns")
            elif trees and what in SCALERS:
                before.append(part)
            else:
                LAYERS[what](part, net)
        except UsageError as error:
            blockers.append(Blocker.of(_called(name, part), error, kind, INSTEAD_OF))
    if blockers:
        raise refuse(kind, blockers)
    if isinstance(interface.input, TableInput):
        _by_columns(net, interface.input)
    model = Model(Architecture(tuple(net.steps), (features,)), net.weights, interface)
    if batch is None:
        warnings.warn(
            f"without samples nothing shows that the model is {kind}, or where its inputs lie (taken to be"
            f" [{interface.bounds()[0]:g}, {interface.bounds()[1]:g}]): from_sklearn(estimator, samples)",
            RangeWarning,
            stacklevel=3,
        )
        return model.fold()
    source = SklearnSource(kind, estimator, fitted[-1], read if trees else None)
    source.check_grid(batch, tolerance)
    return checked(model, source, batch, tolerance, dict.fromkeys((s.name for s in net.steps), kind))


class SklearnSource:
    """The estimator, run on rows."""

    seen = "report it: the estimator was not read as it is meant"
    rounding = 1e-6

    def __init__(self, kind: str, estimator: Fitted, last: Fitted, read: Read | None) -> None:
        """``read``: what trees, which jump, take rows for once they are rounded as inputs are."""
        self.kind = self.line = kind
        self._read = read
        self._estimator = estimator
        methods = ("predict_proba", "decision_function", "predict") if hasattr(last, "classes_") else ("predict",)
        if type(last).__name__ in MARGINS:
            methods = ("decision_function",)
        self._method = next((m for m in methods if hasattr(estimator, m)), "transform")

    def __call__(self, x: Array) -> Array:
        """Its results, (N, outputs)."""
        return self._of(x if self._read is None else self._read(x))

    def told_apart(self, x: Array) -> tuple[int, ...]:
        return ()

    def layers(self, x: Array, names: set[str]) -> Mapping[str, list[Array]]:
        """None: it is asked as a whole."""
        return {}

    def check_grid(self, x: Array, tolerance: float) -> None:
        """Raises DiffersFromSource where many rows have other results once rounded, and warns where some have."""
        if self._read is None:
            return
        check_grid(self._of(x), self(x), tolerance)

    def _of(self, x: Array) -> Array:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that arrays have not
            try:
                found = np.asarray(getattr(self._estimator, self._method)(x), np.float64)
            except Exception as error:  # noqa: BLE001 - whatever the estimator raises
                raise ShapeError(f"{self.kind} does not take samples of shape {x.shape}: {said_by(error)}") from None
        if found.ndim == 2:
            return found
        return np.stack([-found, found], axis=1) if self._method == "decision_function" else found[:, None]


def _parts(estimator: Fitted) -> dict[str, Fitted]:
    """The steps of pipelines within pipelines, by name.  Raises UnsupportedError naming all that cannot be read."""
    found, blockers = dict[str, Fitted](), list[Blocker]()

    def walk(part: Fitted, name: str) -> None:
        what = type(part).__name__
        ours = type(part).__module__.partition(".")[0] in LIBRARIES
        if ours and what == "Pipeline":
            for number, (_, inner) in enumerate(part.steps):
                if inner is not None and inner != "passthrough":
                    walk(inner, f"{name}.{number}" if name else str(number))
        elif ours and what in SEARCHES and hasattr(part, "best_estimator_"):
            walk(part.best_estimator_, name)
        elif not ours or what not in LAYERS.keys() | FORESTS.keys():
            blockers.append(Blocker(_called(name, part), "there is no such layer", INSTEAD_OF, what))
        elif not hasattr(part, "n_features_in_"):
            blockers.append(Blocker(_called(name, part), "it is not fitted", "call fit first", what, UsageError))
        else:
            found[f"{name}_{what}" if name else what] = part

    walk(estimator, "")
    if blockers:
        raise refuse(f"the {type(estimator).__name__}", blockers)
    if not found:
        raise UsageError(f"from_sklearn takes a fitted estimator, and {type(estimator).__name__} has no part")
    return found


def _by_columns(net: Written, table: TableInput) -> None:
    """Columns are brought to one size first, where weights can make up for it."""
    first = net.steps[0]
    if not isinstance(first.layer, BatchNorm1d | Linear):
        return
    sizes = [max(abs(column.low), abs(column.high), 2.0**-GRID_BITS) for column in table.columns]
    exponents = np.ceil(np.log2(sizes)).astype(int)
    net.weights[f"{first.name}.weight"] = net.weights[f"{first.name}.weight"] * np.exp2(exponents)
    moved = [msgspec.structs.replace(step, inputs=tuple(i + 1 for i in step.inputs)) for step in net.steps]
    net.steps = [Step("columns", Columns(tuple(exponents.tolist())), (0,)), *moved]


def _called(name: str, part: Fitted) -> str:
    what = printable(type(part).__name__)
    return f"part {name!r} is {what}" if name else f"the estimator is {what}"


def _interface(said: Interface, fitted: list[Fitted], batch: Array | None) -> Interface:
    """Completed by what the estimator knows: names of columns, with bounds of the samples, and of classes."""
    takes, gives = said.input, said.output
    if takes is None and batch is not None:
        names = getattr(fitted[0], "feature_names_in_", [f"x{i}" for i in range(batch.shape[1])])
        columns = zip(map(_name, names), batch.T, strict=True)
        takes = TableInput(tuple(Column(name, *_bounds(values)) for name, values in columns))
    classes = getattr(fitted[-1], "classes_", None)
    if gives is None and classes is not None and not isinstance(classes, list):
        gives = Classes(tuple(Label(_name(c)) for c in classes), "none")
    return Interface(takes, gives, said.notice)


def _name(name: object) -> str:
    return printable(str(name)).strip()[:MAX_NAME] or "?"


def _bounds(values: Array) -> tuple[float, float]:
    """A power of two that no magnitude is above; 0 below, where nothing is negative."""
    high = 2.0 ** math.ceil(math.log2(max(float(np.abs(values).max()), 2.0**-GRID_BITS)))
    return (-high if values.min() < 0 else 0.0), high


def _range(interface: Interface, batch: Array | None) -> tuple[float, float]:
    """Where inputs lie."""
    if interface.input is None:
        return -WIDEST, WIDEST
    low, high = interface.bounds()
    return (low, high) if batch is None else (min(low, float(batch.min())), max(high, float(batch.max())))
