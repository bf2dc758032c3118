"""Least squares as an algebra of sums, and the linear map that solves them: numpy alone.

The laws of ``NormalEquations`` (its tests state them)::

    merge(a, merge(b, c)) == merge(merge(a, b), c)        merge(a, b) == merge(b, a)
    merge(zeros, a) == a                                  from_batch(X).n == len(X)

Over arbitrary floats the first two hold up to rounding. They hold **to the bit**, for any batch
size, order and number of workers, when every value in X and Y is a multiple of ``QUANTUM``: then
each product is a multiple of ``QUANTUM**2`` and float64 adds such numbers exactly up to
``EXACT_ROWS`` rows of values in [-1, 1]. ``quantise`` puts values there; its error (3e-5) is
below that of the float16 maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from sensloc.sums import Sums

Array = npt.NDArray[np.float64]

QUANTUM = 2.0**-14
EXACT_ROWS = 2**25
"""2**25 rows x (1 / QUANTUM)**2 = 2**53, the integers that float64 holds exactly."""


def quantise(values: npt.NDArray[Any]) -> Array:
    """Return the values rounded to multiples of ``QUANTUM``: float64 of the same shape."""
    return np.asarray(np.rint(np.asarray(values, dtype=np.float64) / QUANTUM) * QUANTUM)


@dataclass(frozen=True)
class NormalEquations(Sums):
    """The sufficient statistics of a linear regression with intercept.

    Attributes:
        n: The number of rows.
        x: [d] The sum of the features.
        y: [t] The sum of the targets.
        xx: [d, d] The sum of x x^T.
        xy: [d, t] The sum of x y^T.
    """

    n: int
    x: Array
    y: Array
    xx: Array
    xy: Array

    @classmethod
    def zeros(cls, features: int, targets: int) -> Self:
        """Return the sums of no rows, the identity of ``merge``."""
        shapes = ((features,), (targets,), (features, features), (features, targets))
        return cls(0, *(np.zeros(shape) for shape in shapes))

    @classmethod
    def from_batch(cls, features: npt.NDArray[Any], targets: npt.NDArray[Any]) -> Self:
        """Return the sums of one batch.

        Args:
            features: [n, d].
            targets: [n, t].

        Raises:
            ValueError: The shapes are others.
        """
        x, y = np.asarray(features, np.float64), np.asarray(targets, np.float64)
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
            raise ValueError(f"want [n, d] features and [n, t] targets, got {x.shape}, {y.shape}")
        return cls(len(x), x.sum(0), y.sum(0), x.T @ x, x.T @ y)

    def spectrum(self) -> tuple[Array, Array, Array]:
        """Return the one decomposition that serves every ridge.

        Returns:
            Eigenvalues [d] (ascending, >= 0) and eigenvectors [d, d] of the features' covariance,
            and the features' covariance with the targets in that basis [d, t].

        Raises:
            ValueError: There are no rows.
        """
        if self.n == 0:
            raise ValueError("no rows: nothing to solve")
        mean_x, mean_y = self.x / self.n, self.y / self.n
        values, vectors = np.linalg.eigh(self.xx / self.n - np.outer(mean_x, mean_x))
        cross = vectors.T @ (self.xy / self.n - np.outer(mean_x, mean_y))
        return np.clip(values, 0.0, None), vectors, cross

    def path(self, ridges: Sequence[float]) -> list["LinearMap"]:
        """Return one fitted map per ridge, of the penalty that ``LinearMap`` describes."""
        values, vectors, cross = self.spectrum()
        rounding = np.finfo(np.float64).eps * len(values)
        floor = rounding * max(values[-1], float(np.diag(self.xx).max()) / self.n)
        maps = []
        for ridge in ridges:
            damped = values + ridge
            usable = damped > floor
            inverse = np.divide(1.0, damped, out=np.zeros_like(damped), where=usable)
            weights = vectors @ (inverse[:, None] * cross)
            fitted = LinearMap(ridge=ridge)
            fitted.coef_ = weights.T
            fitted.intercept_ = (self.y - self.x @ weights) / self.n
            fitted.condition_number_ = _ratio(damped[usable])
            fitted.n_features_in_ = len(values)
            fitted.n_samples_seen_ = self.n
            fitted.sums_ = self
            maps.append(fitted)
        return maps

    def solve(self, ridge: float) -> "LinearMap":
        """Return the fitted map of one ridge."""
        return self.path([ridge])[0]


def _ratio(ascending: Array) -> float:
    """Return the last over the first of the usable eigenvalues, or 1 where they are equal.

    It is 1 too where there are none, or where they are infinite.
    """
    if len(ascending) == 0 or ascending[0] == ascending[-1]:
        return 1.0
    return float(ascending[-1] / ascending[0])


class LinearMap:
    """Ridge regression from sums: what ``NormalEquations`` solves.

    It minimises ``mean((y - W x - b)^2) + ridge * |W|^2``: the penalty is per row, so that one
    value means the same for 300 images and for 300,000 (scikit-learn's ``alpha`` is n * ridge).
    The intercept is free, so at ridge -> infinity the map *is* the mean target. Directions in
    which the features do not vary get weight 0 (the minimum-norm solution at ridge 0).

    Attributes:
        coef_: [t, d] The weights W.
        intercept_: [t] The intercept b.
        condition_number_: The condition number of the penalised covariance.
        n_samples_seen_: The number of rows behind the fit.
        sums_: Their sums; a map that was saved and loaded has none.
    """

    coef_: Array
    intercept_: Array
    condition_number_: float
    n_features_in_: int
    n_samples_seen_: int
    sums_: NormalEquations

    def __init__(self, ridge: float = 1e-3) -> None:
        self.ridge = ridge

    def predict(self, X: Any) -> Array:
        """Return the targets of finite features [n, d]: [n, t]."""
        return np.asarray(X @ self.coef_.T + self.intercept_)
