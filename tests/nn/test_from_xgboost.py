"""XGBoost's trees: the same leaf for each row, ties included, or a refusal."""

from __future__ import annotations

import numpy as np
import pytest

xgboost = pytest.importorskip("xgboost")
pytest.importorskip("sklearn")

from mpc.errors import UnsupportedError  # noqa: E402
from nn import from_sklearn  # noqa: E402

RNG = np.random.default_rng(0)
ROWS = RNG.integers(-8, 8, (200, 4)) / 8
"""Of few digits, so that thresholds are often met."""
FEW = {"n_estimators": 5, "max_depth": 3, "n_jobs": 1}
TARGETS = {
    "XGBRegressor": ROWS @ [1.0, -2.0, 0.5, 0.0] + ROWS[:, 0] * ROWS[:, 1],
    "XGBClassifier": (ROWS.sum(1) > 0).astype(int),
    "XGBClassifier, three": np.digitize(ROWS.sum(1), [-0.5, 0.5]),
    "XGBRFRegressor": ROWS[:, 0] * ROWS[:, 1],
}


@pytest.mark.parametrize("name", TARGETS)
def test_it_is_the_same_function(name: str) -> None:
    kind = getattr(xgboost, name.partition(",")[0])
    fitted = kind(**FEW).fit(ROWS, TARGETS[name])
    model = from_sklearn(fitted, ROWS)
    wanted = fitted.predict_proba(ROWS) if hasattr(fitted, "classes_") else fitted.predict(ROWS)[:, None]
    assert np.abs(model.plain(ROWS) - wanted).max() < 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [({"objective": "count:poisson"}, "its objective"), ({"booster": "dart"}, "its booster is 'dart'")],
)
def test_what_is_refused(options: dict[str, str], message: str) -> None:
    fitted = xgboost.XGBRegressor(**FEW, **options).fit(ROWS, np.abs(TARGETS["XGBRegressor"]))
    with pytest.raises(UnsupportedError, match=f"{message}.*instead: "):
        from_sklearn(fitted, ROWS)
