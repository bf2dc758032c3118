"""Discriminative clustering: the matrix A of co-localization, applied and never formed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular

from sensloc.baselines.colocalization.similarity import Array


@dataclass(frozen=True)
class Clustering:
    """The matrix A as an operator: ``A z = P (z - U U^T z) / trace``, where P z = z - mean z.

    Attributes:
        factor: U, [N, r] with r = min(N, d) and columns of mean 0.
        trace: of A before it is scaled.
    """

    factor: Array
    trace: float

    def __matmul__(self, z: Array) -> Array:
        """Return A z: [N] -> [N]."""
        return np.asarray((z - z.mean() - self.factor @ (self.factor.T @ z)) / self.trace)

    def block(self, boxes: slice) -> Array:
        """Return A's rows and columns of one image: [m, m]."""
        u = self.factor[boxes]
        return (np.eye(len(u)) - 1 / len(self.factor) - u @ u.T) / self.trace


def clustering(x: npt.NDArray[Any], kappa: float) -> Clustering:
    """Return what a ridge regression with intercept cannot explain of a labelling of the boxes.

    Up to its trace, ``z^T A z / N = min over w, b of mean (z - x w - b)^2 + kappa |w|^2``.

    Args:
        x: [N, d] features.
        kappa: of the ridge, > 0.
    """
    centred = np.asarray(x, np.float64) - np.mean(x, axis=0, dtype=np.float64)
    n, d = centred.shape
    if d > n:  # only X X^T matters, and the triangle of X^T = Q R has the same in [N, N]
        centred = np.asarray(np.linalg.qr(centred.T, mode="r")).T
    gram = centred.T @ centred
    gram[np.diag_indices_from(gram)] += n * kappa
    factor = solve_triangular(np.linalg.cholesky(gram), centred.T, lower=True).T
    return Clustering(factor, float(n - 1 - (factor**2).sum()))
