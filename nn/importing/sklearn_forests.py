"""Ensembles of trees: which trees, how their sum is made a result, and what was done to columns before."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nn.importing.blockers import refused
from nn.importing.sklearn_layers import two_classes
from nn.importing.sklearn_trees import Read, Tree, complete, of_histogram, of_lightgbm, of_sklearn, of_xgboost
from nn.importing.written import Fitted, Written
from nn.layer import Array
from nn.softmax import Softmax


class Ensemble(NamedTuple):
    """Trees, what is added to their sum, and what it is then: ``"sigmoid"``, ``"softmax"`` or nothing."""

    trees: list[Tree]
    bias: Array
    ends: str = ""
    kind: Any = np.float32
    """Of numbers that are compared."""


def convert(fitted: Fitted, net: Written, before: list[Fitted], read: Read, low: float, high: float) -> None:
    """For inputs in [low, high], as ``read``; ``before``: scalers that come first, which thresholds absorb."""
    found = FORESTS[type(fitted).__name__](fitted)

    def given(rows: Array) -> Array:
        rows = read(rows)
        for scaler in before:
            rows = scaler.transform(rows)
        with np.errstate(over="ignore"):
            return np.asarray(rows.astype(found.kind))

    layer, weights = complete(found.trees, fitted.n_features_in_, found.bias, given, low, high)
    net.add("trees", layer, **weights)
    if found.ends == "sigmoid":
        two_classes(net)
    elif found.ends == "softmax":
        net.add("probabilities", Softmax())


def _one(fitted: Fitted) -> Ensemble:
    tree = of_sklearn(fitted)
    return Ensemble([tree], np.zeros(tree.leaf.shape[1]))


def _forest(fitted: Fitted) -> Ensemble:
    count = len(fitted.estimators_)
    if hasattr(fitted, "classes_") and fitted.n_outputs_ != 1:
        raise refused("it has several targets", "train one for each")
    trees = [of_sklearn(each, 1.0 / count) for each in fitted.estimators_]
    return Ensemble(trees, np.zeros(trees[0].leaf.shape[1]))


def _gradient(fitted: Fitted) -> Ensemble:
    stages = fitted.estimators_
    outputs = stages.shape[1]
    kind = type(fitted.init_).__name__
    if not isinstance(fitted.init_, str) and not kind.startswith("Dummy"):
        raise refused(f"it begins with {kind}", "train it with init=None or init='zero'")
    # With exponential loss, the probability is the sigmoid of twice the sum.
    twice = 2.0 if fitted.loss == "exponential" else 1.0
    rate = float(fitted.learning_rate)
    trees = [of_sklearn(tree, rate * twice, k, outputs) for stage in stages for k, tree in enumerate(stage)]
    zero = np.zeros((1, fitted.n_features_in_), np.float32)
    is_classifier = hasattr(fitted, "classes_")
    whole = np.ravel(fitted.decision_function(zero) if is_classifier else fitted.predict(zero))
    own = np.array([sum(tree.predict(zero)[0] for tree in stages[:, k]) for k in range(outputs)])
    ends = ("sigmoid" if outputs == 1 else "softmax") if is_classifier else ""
    return Ensemble(trees, twice * (whole - rate * own), ends)


def _histogram(fitted: Fitted) -> Ensemble:
    if getattr(fitted, "_preprocessor", None) is not None:
        raise refused("it has columns of categories", "encode them as numbers, one column each")
    if not hasattr(fitted, "classes_") and fitted.loss not in ("squared_error", "absolute_error", "quantile"):
        raise refused(f"its loss is {fitted.loss!r}, and results are exp of the sum", "take loss='squared_error'")
    bias = np.ravel(fitted._baseline_prediction).astype(np.float64)
    trees = [of_histogram(t.nodes, k, len(bias)) for stage in fitted._predictors for k, t in enumerate(stage)]
    ends = ("sigmoid" if len(bias) == 1 else "softmax") if hasattr(fitted, "classes_") else ""
    return Ensemble(trees, bias, ends, np.float64)


LIGHTGBM = {
    "binary": "sigmoid", "multiclass": "softmax",
    **dict.fromkeys(("regression", "regression_l1", "huber", "fair", "quantile", "mape"), ""),
}  # fmt: skip
"""Objectives, and what is made of the sum."""


def _lightgbm(fitted: Fitted) -> Ensemble:
    found = fitted.booster_.dump_model()
    objective, *options = str(found["objective"]).split()
    if objective not in LIGHTGBM or set(options) & {"sqrt"}:
        raise refused(f"its objective is {found['objective']!r}", f"train it with one of {', '.join(LIGHTGBM)}")
    outputs = int(found["num_tree_per_iteration"])
    trees = [of_lightgbm(t["tree_structure"], i % outputs, outputs) for i, t in enumerate(found["tree_info"])]
    scale = next((float(o.partition(":")[2]) for o in options if o.startswith("sigmoid:")), 1.0)
    if found.get("average_output"):
        scale *= outputs / len(trees)
    trees = [tree._replace(leaf=tree.leaf * scale) for tree in trees]
    return Ensemble(trees, np.zeros(outputs), LIGHTGBM[objective], np.float64)


XGBOOST = {
    "binary:logistic": "sigmoid", "multi:softprob": "softmax", "multi:softmax": "softmax",
    **dict.fromkeys(("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "reg:quantileerror"), ""),
}  # fmt: skip
"""Objectives, and what is made of the sum."""


def _xgboost(fitted: Fitted) -> Ensemble:
    """Of the record that it saves, JSON in this process's memory."""
    learner = json.loads(bytes(fitted.get_booster().save_raw("json")))["learner"]
    objective, said = str(learner["objective"]["name"]), learner["learner_model_param"]
    if objective not in XGBOOST or (XGBOOST[objective] == "sigmoid" and not hasattr(fitted, "classes_")):
        raise refused(f"its objective is {objective!r}", f"train it with one of {', '.join(XGBOOST)}")
    if learner["gradient_booster"]["name"] != "gbtree":
        raise refused(f"its booster is {learner['gradient_booster']['name']!r}", "train it with booster='gbtree'")
    if getattr(fitted, "early_stopping_rounds", None):
        raise refused("it stopped early, and predicts by some of its trees", "train it with n_estimators alone")
    outputs = max(1, int(said["num_class"]), int(said["num_target"]))
    model = learner["gradient_booster"]["model"]
    trees = [of_xgboost(t, int(k), outputs) for t, k in zip(model["trees"], model["tree_info"], strict=True)]
    base = np.broadcast_to(np.array(str(said["base_score"]).strip("[]").split(","), np.float64), (outputs,))
    if XGBOOST[objective] == "sigmoid":
        base = np.log(base / (1.0 - base))
    return Ensemble(trees, np.array(base), XGBOOST[objective])


_KINDS: dict[str, Callable[[Fitted], Ensemble]] = {
    "DecisionTree": _one,
    "ExtraTree": _one,
    "RandomForest": _forest,
    "ExtraTrees": _forest,
    "GradientBoosting": _gradient,
    "HistGradientBoosting": _histogram,
    "LGBM": _lightgbm,
    "XGB": _xgboost,
    "XGBRF": _xgboost,
}

FORESTS = {kind + ends: read for kind, read in _KINDS.items() for ends in ("Classifier", "Regressor")}
