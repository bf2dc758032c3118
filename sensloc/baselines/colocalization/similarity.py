"""How alike boxes are, and the normalised Laplacian of it: the matrix L of co-localization."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Kernel = Literal["chi2", "cosine"]

SAMPLE = 500
"""Boxes whose distances give the median."""
ROWS = 256
"""Rows of the kernel that are computed at once."""


def chi2(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the chi-square distance of histograms, ``sum (a - b)^2 / (a + b)``, where 0 / 0 is 0.

    Since ``(a - b)^2 / (a + b) = a + b - 4 a b / (a + b)``, only a's non-zero bins cost anything.

    Args:
        a: [p, d], not negative.
        b: [q, d], not negative; fastest as float32 in Fortran order.

    Returns:
        float32 [p, q].
    """
    a, bins = np.asarray(a, np.float32), np.asarray(b, np.float32).T
    distance = a.sum(1)[:, None] + bins.sum(0)
    for row, histogram in zip(distance, a, strict=True):
        support = np.flatnonzero(histogram)
        value = histogram[support]
        other = bins[support]
        row -= 4 * (value @ (other / (other + value[:, None])))
    return np.asarray(np.maximum(distance, 0))


def cosine(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the squared distance of unit vectors, ``2 - 2 cos``: [p, d], [q, d] -> [p, q]."""
    return np.asarray(np.maximum(2 - 2 * (a @ b.T), 0))


DISTANCES: dict[Kernel, Callable[..., npt.NDArray[Any]]] = {"chi2": chi2, "cosine": cosine}


def median_gamma(x: npt.NDArray[Any], owner: npt.NDArray[np.intp], kernel: Kernel) -> float:
    """Return one over the median distance between boxes of different images, of an even sample.

    Args:
        x: [N, d] features.
        owner: [N] the image of each box.
        kernel: which distance.

    Returns:
        1 where no two boxes differ.
    """
    sample = np.unique(np.linspace(0, len(x) - 1, SAMPLE).astype(np.intp))
    distance = DISTANCES[kernel](x[sample], x[sample])
    apart = distance[owner[sample][:, None] != owner[sample]]
    median = float(np.median(apart)) if apart.size else 0.0
    return 1 / median if median > 0 else 1.0


def similarity(
    x: npt.NDArray[Any], owner: npt.NDArray[np.intp], kernel: Kernel, gamma: float
) -> Array:
    """Return ``exp(-gamma * distance)`` between boxes of different images, and 0 within an image.

    Args:
        x: [N, d] histograms (chi2) or unit vectors (cosine).
        owner: [N] the image of each box, ascending.
        kernel: which distance.
        gamma: of the kernel.

    Returns:
        Symmetric [N, N], from distances in float32.
    """
    x, n = np.asfortranarray(x, np.float32), len(x)
    whole = np.empty((n, n))
    for start in range(0, n, ROWS):
        band, right = slice(start, min(start + ROWS, n)), slice(start, n)
        block = np.exp(-gamma * DISTANCES[kernel](x[band], x[right]).astype(np.float64))
        block[owner[band, None] == owner[right]] = 0
        whole[band, right] = block
        whole[band, band] = np.maximum(whole[band, band], whole[band, band].T)
        whole[right, band] = whole[band, right].T
    return whole


def laplacian(s: Array) -> Array:
    """Return ``I - D^-1/2 S D^-1/2`` over its trace, D the row sums.

    A box that is like no other has the row e_i.

    Args:
        s: symmetric [N, N], not negative.

    Returns:
        [N, N]: positive semidefinite, trace 1.
    """
    degree = s.sum(axis=1)
    scale = np.divide(1, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)
    trace = len(degree) - float((scale**2 * s.diagonal()).sum())
    result = s * (scale / -trace)
    result *= scale[:, None]
    result[np.diag_indices_from(result)] += 1 / trace
    return np.asarray(result)
