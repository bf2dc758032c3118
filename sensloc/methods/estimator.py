"""The linear map as a scikit-learn estimator, whose import takes 1.7 s: no stage imports this."""

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from sensloc.methods.least_squares import Array, LinearMap, NormalEquations


class LinearRegressor(RegressorMixin, MultiOutputMixin, BaseEstimator, LinearMap):  # type: ignore[misc]
    """A ``LinearMap`` that learns from rows, incrementally."""

    def fit(self, X: Any, y: Any) -> Self:
        """Learn from rows: features [n, d], targets [n, t] or [n]."""
        for learned in ("sums_", "coef_"):
            self.__dict__.pop(learned, None)
        return self.partial_fit(X, y)

    def partial_fit(self, X: Any, y: Any) -> Self:
        """Learn from more rows: the result is that of one ``fit`` on all of them."""
        first = not hasattr(self, "sums_")
        X, y = validate_data(
            self, X, y, reset=first, dtype=np.float64, y_numeric=True, multi_output=True
        )
        batch = NormalEquations.from_batch(X, y.reshape(len(X), -1))
        fitted = (batch if first else self.sums_.merge(batch)).solve(self.ridge)
        self.__dict__.update({k: v for k, v in vars(fitted).items() if k.endswith("_")})
        if y.ndim == 1:
            self.coef_, self.intercept_ = self.coef_[0], self.intercept_[0]
        return self

    def predict(self, X: Any) -> Array:
        """Return the targets of features [n, d]: [n, t], or [n] where ``y`` was."""
        check_is_fitted(self)
        return super().predict(validate_data(self, X, reset=False, dtype=np.float64))
