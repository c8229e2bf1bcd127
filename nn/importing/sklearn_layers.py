"""Estimators that are no trees, in layers: what scales columns, linear models, support vectors, networks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from nn.activations import Sigmoid, Tanh
from nn.architecture import AnyLayer
from nn.functional import Affine, Concatenate, Multiply
from nn.importing.blockers import refused
from nn.importing.one_against_one import one_against_one
from nn.importing.written import Fitted, Written
from nn.kernels import RBF, OneAgainstOne
from nn.layer import Array
from nn.layers import BatchNorm1d, Linear
from nn.rectifiers import ReLU
from nn.softmax import Softmax

Convert = Callable[[Fitted, Written], None]

MOST_DEGREE = 8


def per_column(net: Written, scale: npt.ArrayLike, shift: npt.ArrayLike) -> None:
    """scale x + shift."""
    a, b = np.broadcast_arrays(np.asarray(scale, np.float64), np.asarray(shift, np.float64))
    weights = {"weight": a, "bias": b, "running_mean": np.zeros_like(a), "running_var": np.ones_like(a)}
    net.add("scale", BatchNorm1d(len(a), eps=0.0), **weights)


def linear(net: Written, weight: Array, bias: npt.ArrayLike, local: str = "linear") -> None:
    """x @ weight.T + bias."""
    outputs, features = weight.shape
    net.add(local, Linear(features, outputs), weight=weight, bias=np.broadcast_to(np.asarray(bias, float), (outputs,)))


def two_classes(net: Written) -> None:
    """Of a number for the second class: its probability, and beside it that of the first."""
    p = net.add("probability", Sigmoid())
    other = net.add("other", Affine(-1.0, 1.0), p)
    net.add("both", Concatenate(1), other, p)


def two_sides(net: Written) -> None:
    """Of a number for the second class: minus it, and it."""
    d = net.value
    net.add("both", Concatenate(1), net.add("other", Affine(-1.0), d), d)


# -- what comes before ---------------------------------------------------------------------------------------------


def standard(fitted: Fitted, net: Written) -> None:
    scale = 1.0 if fitted.scale_ is None else 1.0 / fitted.scale_
    mean = fitted.mean_ if fitted.with_mean else np.zeros(fitted.n_features_in_)
    per_column(net, np.broadcast_to(scale, mean.shape), -mean * scale)


def robust(fitted: Fitted, net: Written) -> None:
    scale = np.ones(fitted.n_features_in_) if fitted.scale_ is None else 1.0 / fitted.scale_
    center = 0.0 if fitted.center_ is None else fitted.center_
    per_column(net, scale, -center * scale)


def min_max(fitted: Fitted, net: Written) -> None:
    if fitted.clip:
        raise refused("it clips what is outside its range", "make it with clip=False")
    per_column(net, fitted.scale_, fitted.min_)


def max_abs(fitted: Fitted, net: Written) -> None:
    per_column(net, 1.0 / fitted.scale_, 0.0)


def principal(fitted: Fitted, net: Written) -> None:
    axes = np.asarray(fitted.components_, np.float64)
    if getattr(fitted, "whiten", False):
        least = np.finfo(axes.dtype).eps
        axes = axes / np.maximum(np.sqrt(fitted.explained_variance_), least)[:, None]
    mean = getattr(fitted, "mean_", None)
    linear(net, axes, 0.0 if mean is None else -axes @ mean)


# -- linear models -------------------------------------------------------------------------------------------------


def _coefficients(fitted: Fitted, net: Written) -> int:
    """Returns how many numbers there are."""
    weight = np.atleast_2d(np.asarray(fitted.coef_, np.float64))
    linear(net, weight, np.ravel(fitted.intercept_))
    return len(weight)


def regression(fitted: Fitted, net: Written) -> None:
    _coefficients(fitted, net)


def logistic(fitted: Fitted, net: Written) -> None:
    one_by_one = getattr(fitted, "solver", "") == "liblinear" or getattr(fitted, "multi_class", "") == "ovr"
    if _coefficients(fitted, net) == 1:
        two_classes(net)
    elif one_by_one:
        raise refused("it takes each class against all others", "train it with solver='lbfgs'")
    else:
        net.add("probabilities", Softmax())


def margin(fitted: Fitted, net: Written) -> None:
    if _coefficients(fitted, net) == 1:
        two_sides(net)


def descent(fitted: Fitted, net: Written) -> None:
    if fitted.loss not in ("log_loss", "log", "modified_huber"):
        margin(fitted, net)
    elif fitted.loss == "modified_huber" or len(fitted.classes_) > 2:
        raise refused("its probabilities are not a softmax", "take LogisticRegression, or loss='hinge'")
    else:
        _coefficients(fitted, net)
        two_classes(net)


# -- support vectors -----------------------------------------------------------------------------------------------


def support_regression(fitted: Fitted, net: Written) -> None:
    _kernel(fitted, net)
    linear(net, _dense(fitted.dual_coef_), fitted.intercept_, "sum")


def support(fitted: Fitted, net: Written) -> None:
    if fitted.probability is True:
        raise refused("its probabilities come of another fit", "make it with probability=False")
    if len(fitted.classes_) == 2:
        support_regression(fitted, net)
        two_sides(net)
        return
    if fitted.decision_function_shape != "ovr":
        raise refused("it gives a number for each pair of classes", "make it with decision_function_shape='ovr'")
    _kernel(fitted, net)
    weight = one_against_one(_dense(fitted.dual_coef_), fitted.n_support_)
    linear(net, weight, fitted.intercept_, "pairs")
    net.add("votes", OneAgainstOne(len(fitted.classes_)))


def _kernel(fitted: Fitted, net: Written) -> None:
    """What each support vector makes of a row."""
    vectors, gamma = _dense(fitted.support_vectors_), float(fitted._gamma)
    if fitted.kernel == "linear":
        linear(net, vectors, 0.0, "kernel")
    elif fitted.kernel == "rbf":
        net.add("kernel", RBF(vectors.shape[1], len(vectors)), weight=vectors, gamma=[gamma])
    elif fitted.kernel == "sigmoid":
        linear(net, gamma * vectors, fitted.coef0, "kernel")
        net.add("tanh", Tanh())
    elif fitted.kernel == "poly" and 1 <= fitted.degree <= MOST_DEGREE:
        linear(net, gamma * vectors, fitted.coef0, "kernel")
        _power(net, int(fitted.degree))
    else:
        raise refused(f"its kernel is {fitted.kernel!r}", f"take linear, rbf, sigmoid, or poly up to {MOST_DEGREE}")


def _power(net: Written, degree: int) -> None:
    """The last value's, by squaring."""
    square, result = net.value, 0
    for bit in range(degree.bit_length()):
        if bit:
            square = net.add(f"square{bit}", Multiply(), square, square)
        if degree >> bit & 1:
            result = net.add(f"power{bit}", Multiply(), result, square) if result else square
    if result != net.value:
        net.add("power", Affine(), result)


def _dense(values: Fitted) -> Array:
    """Of a matrix that may be sparse."""
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, np.float64)


# -- classes that are normally distributed -----------------------------------------------------------------------------


def naive(fitted: Fitted, net: Written) -> None:
    """GaussianNB: of columns brought to one size, a sum of them and of their squares."""
    means, spreads = np.asarray(fitted.theta_), np.asarray(fitted.var_)
    center, size = means.mean(axis=0), np.sqrt(spreads.mean(axis=0) + means.var(axis=0))
    per_column(net, 1.0 / size, -center / size)
    means, own = (means - center) / size, spreads / size**2
    x = net.value
    net.add("both", Concatenate(1), x, net.add("squares", Multiply(), x, x))
    bias = np.log(fitted.class_prior_) - 0.5 * (np.log(2 * np.pi * spreads) + means**2 / own).sum(axis=1)
    linear(net, np.concatenate([means / own, -0.5 / own], axis=1), bias)
    net.add("probabilities", Softmax())


def quadratic(fitted: Fitted, net: Written) -> None:
    """QuadraticDiscriminantAnalysis: squares of what is left of a row along the axes of each class."""
    axes = [(r / np.sqrt(s)).T for r, s in zip(fitted.rotations_, fitted.scalings_, strict=True)]
    linear(
        net, np.concatenate(axes), np.concatenate([-a @ m for a, m in zip(axes, fitted.means_, strict=True)]), "axes"
    )
    x = net.value
    net.add("squares", Multiply(), x, x)
    of = np.repeat(np.arange(len(axes)), [len(a) for a in axes])
    bias = np.log(fitted.priors_) - 0.5 * np.array([np.log(s).sum() for s in fitted.scalings_])
    linear(net, -0.5 * (of == np.arange(len(axes))[:, None]), bias)
    net.add("probabilities", Softmax())


def counted(fitted: Fitted, net: Written) -> None:
    """MultinomialNB."""
    linear(net, np.asarray(fitted.feature_log_prob_), np.asarray(fitted.class_log_prior_))
    net.add("probabilities", Softmax())


# -- networks ------------------------------------------------------------------------------------------------------


def network(fitted: Fitted, net: Written) -> None:
    last = len(fitted.coefs_) - 1
    for number, (weight, bias) in enumerate(zip(fitted.coefs_, fitted.intercepts_, strict=True)):
        linear(net, weight.T, bias, f"linear{number}")
        if number < last:
            _activation(net, fitted.activation, f"act{number}")
    if fitted.out_activation_ == "softmax":
        net.add("probabilities", Softmax())
    elif fitted.out_activation_ == "logistic" and fitted.n_outputs_ == 1:
        two_classes(net)
    else:
        _activation(net, fitted.out_activation_, "out")


def _activation(net: Written, name: str, local: str) -> None:
    if name == "identity":
        return
    known: dict[str, AnyLayer] = {"relu": ReLU(), "tanh": Tanh(), "logistic": Sigmoid()}
    if name not in known:
        raise refused(f"its activation is {name!r}", f"train it with one of {', '.join(known)}, identity")
    net.add(local, known[name])


SCALERS: dict[str, Convert] = {
    "StandardScaler": standard,
    "RobustScaler": robust,
    "MinMaxScaler": min_max,
    "MaxAbsScaler": max_abs,
}
"""Each column by itself, and the more the more."""

LAYERS: dict[str, Convert] = {
    **SCALERS,
    "PCA": principal,
    "TruncatedSVD": principal,
    **dict.fromkeys(
        (
            "LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "LassoLars", "LassoLarsCV", "LassoLarsIC",
            "ElasticNet", "ElasticNetCV", "Lars", "LarsCV", "OrthogonalMatchingPursuit", "BayesianRidge",
            "ARDRegression", "HuberRegressor", "TheilSenRegressor", "QuantileRegressor", "SGDRegressor", "LinearSVR",
        ),
        regression,
    ),
    **dict.fromkeys(("LogisticRegression", "LogisticRegressionCV", "LinearDiscriminantAnalysis"), logistic),
    **dict.fromkeys(("LinearSVC", "RidgeClassifier", "RidgeClassifierCV", "Perceptron"), margin),
    "SGDClassifier": descent,
    **dict.fromkeys(("SVC", "NuSVC"), support),
    **dict.fromkeys(("SVR", "NuSVR"), support_regression),
    "GaussianNB": naive,
    "QuadraticDiscriminantAnalysis": quadratic,
    "MultinomialNB": counted,
    **dict.fromkeys(("MLPClassifier", "MLPRegressor"), network),
}  # fmt: skip
