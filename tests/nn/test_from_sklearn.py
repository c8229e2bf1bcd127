"""``from_sklearn``: what the estimator gives, or a sentence that says all that stands in the way."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn import (
    decomposition,
    discriminant_analysis,
    ensemble,
    linear_model,
    naive_bayes,
    neural_network,
    pipeline,
    preprocessing,
    svm,
    tree,
)

from mpc import fixed_point
from mpc.errors import DiffersFromSource, ShapeError, UnsupportedError, UsageError
from nn import Model, from_sklearn
from nn.tables import TableInput
from protocols import PrecisionWarning, RangeWarning
from protocols.readings.memory import MemoryStore, run_in_memory

RNG = np.random.default_rng(0)
X = np.rint(RNG.normal(size=(120, 4)) * [1, 3, 20, 0.5] * 2**10) / 2**10
SCORE = X / [1, 3, 20, 0.5] @ np.array([[1.0, -1.0, 0.5], [0.5, 1.0, -1.0], [-1.0, 0.3, 0.2], [0.2, 0.2, 1.0]])
THREE, TWO, REAL = SCORE.argmax(axis=1), (SCORE[:, 0] > 0).astype(int), SCORE[:, 0]
MANY = SCORE[:, :2]


def scaled(last: Any, *between: Any) -> Any:
    return pipeline.make_pipeline(preprocessing.StandardScaler(), *between, last)


SMALL: dict[str, Any] = {"random_state": 0}
CASES: dict[str, Callable[[], Any]] = {
    "linear": lambda: linear_model.LinearRegression().fit(X, REAL),
    "two targets": lambda: scaled(linear_model.Ridge()).fit(X, MANY),
    "lasso": lambda: scaled(linear_model.Lasso(0.01)).fit(X, REAL),
    "no intercept": lambda: linear_model.LinearRegression(fit_intercept=False).fit(X, REAL),
    "min and max": lambda: pipeline.make_pipeline(preprocessing.MinMaxScaler(), linear_model.Ridge()).fit(X, REAL),
    "robust": lambda: pipeline.make_pipeline(preprocessing.RobustScaler(), linear_model.Ridge()).fit(X, REAL),
    "max": lambda: pipeline.make_pipeline(preprocessing.MaxAbsScaler(), linear_model.Ridge()).fit(X, REAL),
    "no mean": lambda: preprocessing.StandardScaler(with_mean=False).fit(X),
    "no deviation": lambda: preprocessing.StandardScaler(with_std=False).fit(X),
    "logistic": lambda: scaled(linear_model.LogisticRegression()).fit(X, TWO),
    "softmax": lambda: scaled(linear_model.LogisticRegression()).fit(X, THREE),
    "naive": lambda: naive_bayes.GaussianNB().fit(X, THREE),
    "quadratic": lambda: discriminant_analysis.QuadraticDiscriminantAnalysis(reg_param=0.1).fit(X, THREE),
    "counts": lambda: naive_bayes.MultinomialNB().fit(np.abs(X), THREE),
    "discriminant": lambda: discriminant_analysis.LinearDiscriminantAnalysis().fit(X, THREE),
    "descent": lambda: scaled(linear_model.SGDClassifier(loss="log_loss", **SMALL)).fit(X, TWO),
    "hinge": lambda: scaled(linear_model.SGDClassifier(**SMALL)).fit(X, THREE),
    "linear margin": lambda: scaled(svm.LinearSVC()).fit(X, TWO),
    "three margins": lambda: scaled(svm.LinearSVC()).fit(X, THREE),
    "svc linear": lambda: scaled(svm.SVC(kernel="linear")).fit(X, TWO),
    "svc rbf": lambda: scaled(svm.SVC()).fit(X, TWO),
    "svc of classes": lambda: scaled(svm.SVC(kernel="linear")).fit(X, THREE),
    "svc rbf of classes": lambda: scaled(svm.SVC()).fit(X, THREE),
    "svc poly": lambda: scaled(svm.SVC(kernel="poly", coef0=1.0)).fit(X, TWO),
    "svc sigmoid": lambda: scaled(svm.SVC(kernel="sigmoid")).fit(X, TWO),
    "svr": lambda: scaled(svm.SVR()).fit(X, REAL),
    "svr of degree 2": lambda: scaled(svm.SVR(kernel="poly", degree=2)).fit(X, REAL),
    "relu": lambda: scaled(neural_network.MLPClassifier((6,), max_iter=9, **SMALL)).fit(X, THREE),
    "tanh": lambda: scaled(neural_network.MLPClassifier((5, 4), activation="tanh", max_iter=9, **SMALL)).fit(X, TWO),
    "mlp": lambda: scaled(
        neural_network.MLPRegressor(hidden_layer_sizes=(5,), activation="logistic", max_iter=9, **SMALL)
    ).fit(X, MANY),
    "pca": lambda: scaled(linear_model.LogisticRegression(), decomposition.PCA(2, whiten=True)).fit(X, TWO),
    "transform": lambda: scaled(decomposition.PCA(3)).fit(X),
    "tree": lambda: tree.DecisionTreeClassifier(max_depth=4).fit(X, THREE),
    "tree of numbers": lambda: tree.DecisionTreeRegressor(max_depth=4).fit(X, MANY),
    "one leaf": lambda: tree.DecisionTreeRegressor().fit(X, np.full(len(X), 1.5)),
    "extra": lambda: tree.ExtraTreeClassifier(max_depth=3, **SMALL).fit(X, TWO),
    "forest": lambda: ensemble.RandomForestClassifier(7, max_depth=4, **SMALL).fit(X, THREE),
    "forest of numbers": lambda: ensemble.RandomForestRegressor(5, max_depth=3, **SMALL).fit(X, MANY),
    "scaled forest": lambda: scaled(ensemble.ExtraTreesClassifier(5, max_depth=4, **SMALL)).fit(X, TWO),
    "boosted": lambda: ensemble.GradientBoostingClassifier(n_estimators=5, **SMALL).fit(X, TWO),
    "boosted exponential": lambda: ensemble.GradientBoostingClassifier(loss="exponential", n_estimators=4, **SMALL).fit(
        X, TWO
    ),
    "boosted classes": lambda: ensemble.GradientBoostingClassifier(n_estimators=3, init="zero", **SMALL).fit(X, THREE),
    "boosted numbers": lambda: scaled(ensemble.GradientBoostingRegressor(n_estimators=5, **SMALL)).fit(X, REAL),
    "histograms": lambda: ensemble.HistGradientBoostingClassifier(max_iter=4, max_depth=3).fit(X, TWO),
    "histograms of classes": lambda: ensemble.HistGradientBoostingClassifier(max_iter=2, max_depth=3).fit(X, THREE),
    "histograms of numbers": lambda: ensemble.HistGradientBoostingRegressor(max_iter=4, max_depth=3).fit(X, REAL),
}
TREES = [name for name in CASES if "tree" in name or "forest" in name or "boost" in name or "histo" in name]


def said(estimator: Any, x: np.ndarray) -> np.ndarray:
    """What is documented to be the result."""
    for method in ("predict_proba", "decision_function", "predict", "transform"):
        if hasattr(estimator, method):
            y = np.asarray(getattr(estimator, method)(x))
            if method == "decision_function" and y.ndim == 1:
                return np.stack([-y, y], axis=1)
            return y.reshape(len(x), -1)
    raise AssertionError


def parties(model: Model, x: np.ndarray) -> np.ndarray:
    program = model.description.program(x.shape)
    run = run_in_memory(program, [fixed_point.encode(x, 16)], store=MemoryStore("model", model.encode(), 2))
    return fixed_point.decode(run.outputs[0], program.nodes[program.outputs[0]].type.fraction_bits)


@pytest.mark.sampled(4)
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("name", CASES)
def test_parties_give_what_the_estimator_gives(name: str) -> None:
    estimator = CASES[name]()
    model = from_sklearn(estimator, X)
    wanted = said(estimator, X)
    scale = np.abs(wanted).max()
    assert model.plain(X, exact=True) == pytest.approx(wanted, abs=1e-9 * scale)
    assert np.abs(parties(model, X[:6]) - wanted[:6]).max() <= 5e-3 * scale
    assert isinstance(model.interface.input, TableInput)
    if model.interface.output is not None:
        assert [label.name for label in model.interface.output.labels] == list(map(str, estimator.classes_))
        model.interface.output.check(wanted.shape)


def thresholds(model: Model) -> np.ndarray:
    """Of every node that asks for anything, with the column that it asks for."""
    weights = model.weights
    name = next(name.rpartition(".")[0] for name in weights if name.endswith("selection"))
    selection = weights[f"{name}.selection"]
    asks = selection.any(axis=0)
    return np.stack([selection.argmax(axis=0)[asks], weights[f"{name}.threshold"][asks]], axis=1)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", TREES)
def test_trees_end_in_the_same_leaf_wherever_inputs_can_be(name: str) -> None:
    """At thresholds, a unit above and a unit below, of each node."""
    estimator = CASES[name]()
    model = from_sklearn(estimator, X)
    rows = []
    for column, threshold in thresholds(model):
        for row in X[RNG.integers(0, len(X), 3)]:
            for off in (-1, 0, 1):
                row = row.copy()
                row[int(column)] = threshold + off * 2.0**-16
                rows.append(row)
    x = np.array(rows or X)
    assert model.plain(x, exact=True) == pytest.approx(said(estimator, x), abs=1e-12)
    part = x[:: max(1, len(x) // 40)]
    assert np.abs(parties(model, part) - said(estimator, part)).max() < 1e-3


def test_numbers_that_float32_rounds() -> None:
    """Around 5,000, it has 11 fraction bits; the thresholds of scikit-learn are of 52 bits."""
    x = 5000 + RNG.integers(0, 400, (60, 2)) * 2.0**-16
    estimator = tree.DecisionTreeClassifier(max_depth=5, random_state=0).fit(x, x[:, 0] > x[:, 1])
    model = from_sklearn(estimator, x)
    near = 5000 + RNG.integers(-10, 420, (500, 2)) * 2.0**-16
    assert np.array_equal(model.plain(near), estimator.predict_proba(near))
    assert np.abs(parties(model, near[:50]) - estimator.predict_proba(near[:50])).max() < 1e-5


@pytest.mark.parametrize("objective", ["binary", "multiclass", "regression", "rf"])
def test_lightgbm(objective: str) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    options: dict[str, Any] = {"n_estimators": 4, "num_leaves": 6, "min_child_samples": 3, "verbose": -1, "n_jobs": 1}
    if objective == "regression":
        estimator = lightgbm.LGBMRegressor(**options).fit(X, REAL)
    elif objective == "rf":
        bagged = {"boosting_type": "rf", "subsample": 0.7, "subsample_freq": 1}
        estimator = lightgbm.LGBMClassifier(**options, **bagged).fit(X, TWO)
    else:
        estimator = lightgbm.LGBMClassifier(**options).fit(X, TWO if objective == "binary" else THREE)
    model = from_sklearn(estimator, X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = said(estimator, X)
    assert model.plain(X, exact=True) == pytest.approx(wanted, abs=1e-9)
    assert np.abs(parties(model, X[:5]) - wanted[:5]).max() < 1e-3


def test_a_search_is_its_best_estimator() -> None:
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(tree.DecisionTreeClassifier(), {"max_depth": [2, 3]}, cv=2).fit(X, TWO)
    assert np.array_equal(from_sklearn(search, X).plain(X), search.predict_proba(X))


def test_columns_and_classes_are_called_as_the_estimator_calls_them() -> None:
    estimator = tree.DecisionTreeClassifier(max_depth=2).fit(X, np.array(["no", "yes"])[TWO])
    estimator.feature_names_in_ = np.array(["age", "bmi", "dose", "x y"])
    said_of = from_sklearn(estimator, np.abs(X)).interface
    assert isinstance(said_of.input, TableInput)
    assert [(c.name, c.low, c.high) for c in said_of.input.columns] == [
        ("age", 0.0, 4.0), ("bmi", 0.0, 16.0), ("dose", 0.0, 128.0), ("x y", 0.0, 2.0),
    ]  # fmt: skip
    assert said_of.output is not None
    assert said_of.output.activation == "none"
    assert [label.name for label in said_of.output.labels] == ["no", "yes"]


def test_without_samples_it_warns() -> None:
    with pytest.warns(RangeWarning, match="without samples nothing shows that the model is the DecisionTreeClassifier"):
        model = from_sklearn(CASES["tree"]())
    assert np.array_equal(model.plain(X), CASES["tree"]().predict_proba(X))


def test_all_that_stands_in_the_way_is_named_at_once() -> None:
    parts = [preprocessing.PolynomialFeatures(2), preprocessing.StandardScaler(), naive_bayes.BernoulliNB()]
    with pytest.raises(UnsupportedError) as caught:
        from_sklearn(pipeline.make_pipeline(*parts).fit(X, TWO), X)
    assert "2 things of the Pipeline stand in the way" in str(caught.value)
    assert "part '0' is PolynomialFeatures" in str(caught.value)
    assert "part '2' is BernoulliNB" in str(caught.value)


class Mine:
    """No estimator of a library that is known."""


DEEP = np.arange(40.0).reshape(-1, 1)
REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "deep": (
        lambda: tree.DecisionTreeRegressor().fit(np.exp2(-DEEP), np.exp2(DEEP)),
        UnsupportedError, "max_depth=12 or less",
    ),
    "after pca": (
        lambda: pipeline.make_pipeline(decomposition.PCA(2), tree.DecisionTreeRegressor(max_depth=2)).fit(X, REAL),
        UnsupportedError, "'0_PCA', whose results are rounded",
    ),
    "another's": (Mine, UnsupportedError, "the estimator is Mine: there is no such layer"),
    "not fitted": (linear_model.Ridge, UsageError, "call fit first"),
    "pairs": (
        lambda: svm.SVC(decision_function_shape="ovo").fit(X, THREE), UnsupportedError, "decision_function_shape='ovr'",
    ),
    "clip": (lambda: preprocessing.MinMaxScaler(clip=True).fit(X), UnsupportedError, "clip=False"),
    "huber": (
        lambda: linear_model.SGDClassifier(loss="modified_huber").fit(X, TWO), UnsupportedError, "not a softmax",
    ),
    "begins with another": (
        lambda: ensemble.GradientBoostingRegressor(n_estimators=2, init=linear_model.Ridge()).fit(X, REAL),
        UnsupportedError, "it begins with Ridge",
    ),
    "exp": (
        lambda: ensemble.HistGradientBoostingRegressor(loss="poisson", max_iter=2).fit(X, TWO),
        UnsupportedError, "exp of the sum",
    ),
    "categories": (
        lambda: ensemble.HistGradientBoostingRegressor(max_iter=2, categorical_features=[0]).fit(abs(X).round(), REAL),
        UnsupportedError, "encode them",
    ),
    "nothing": (lambda: pipeline.Pipeline([("a", "passthrough")]), UsageError, "has no part"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    make, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        from_sklearn(make(), DEEP if name == "deep" else X)


def test_what_is_misused() -> None:
    estimator = CASES["tree"]()
    for x in (np.zeros((3, 5)), np.zeros(4)):
        with pytest.raises(ShapeError, match="takes rows of 4 features"):
            from_sklearn(estimator, x)
    with pytest.raises(UsageError, match="a tolerance is"):
        from_sklearn(estimator, X, tolerance=2.0)


def test_an_estimator_that_was_changed_differs() -> None:
    estimator = linear_model.LinearRegression().fit(X, REAL)
    estimator.predict = lambda x: x[:, 0]
    with pytest.raises(DiffersFromSource, match=r"layer 'LinearRegression\.linear' is Linear"):
        from_sklearn(estimator, X)


def test_numbers_too_small_to_tell_apart() -> None:
    x = RNG.normal(size=(100, 2)) * 2.0**-16
    estimator = tree.DecisionTreeClassifier(max_depth=3).fit(x, x[:, 0] > 0)
    with pytest.raises(DiffersFromSource, match="give columns in smaller units"):
        from_sklearn(estimator, x)
    x = np.concatenate([[[0.0, 0.0], [2.0**-18, 0.0]], RNG.choice([-1.0, 1.0], (300, 2))])
    estimator = tree.DecisionTreeClassifier(max_depth=2).fit(x, x[:, 0] > 0)
    with pytest.warns(PrecisionWarning, match="1 of 302 samples"):
        from_sklearn(estimator, x)


def test_samples_between_samples_are_ties() -> None:
    """Of a single decimal: bits far below 2^-16 decide between them, and go as the estimator's."""
    x = RNG.integers(0, 40, (200, 3)) / 10
    forest = ensemble.RandomForestClassifier(10, max_depth=5, random_state=0).fit(x, x.sum(axis=1) > 6)
    estimator = pipeline.make_pipeline(preprocessing.StandardScaler(), forest)
    estimator.fit(x, x.sum(axis=1) > 6)
    model = from_sklearn(estimator, x)
    every = RNG.choice(np.unique(x), (1000, 3))
    assert np.abs(model.plain(every) - estimator.predict_proba(every)).max() < 1e-12
    assert np.abs(parties(model, every[:40]) - estimator.predict_proba(every[:40])).max() < 1e-4


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_columns_of_other_units() -> None:
    """From thousandths to ten thousands: ranges of columns are public, and bound what is computed."""
    units = np.array([1e-2, 1, 3e2, 2e4])
    for make in (
        lambda: scaled(svm.LinearSVC()), lambda: scaled(neural_network.MLPClassifier((5,), max_iter=9)),
        lambda: scaled(svm.SVC()),
    ):  # fmt: skip
        estimator = make().fit(X * units, TWO)
        model = from_sklearn(estimator, X * units)
        wanted = said(estimator, X[:6] * units)
        assert np.abs(parties(model, X[:6] * units) - wanted).max() <= 1e-2 * np.abs(wanted).max()
