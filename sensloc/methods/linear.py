"""The paper's method: a linear map from the sensitivity map to the four corners. numpy only."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sensloc.boxes import Boxes, largest, resize, tidy
from sensloc.methods.least_squares import LinearMap, quantise
from sensloc.rows import true_boxes, vectors

Normalise = Literal["l2", "sum", "max"]


def features(
    rows: pa.Table, normalise: Normalise, columns: Sequence[str] = ("map",)
) -> npt.NDArray[np.float64]:
    """What the linear map sees: each image's maps, normalised, on the exact grid of ``quantise``.

    Args:
        rows: of the sensitivity table, without errors.
        normalise: "l2", "sum" or "max": each map is divided by its own, since the derivative's
            size says how sure the classifier is, not where the object is.
        columns: of the maps, not negative; their features stand side by side.

    Returns:
        float64 [n, d], with a grid of G and one column d = G * G.
    """
    return features_of([vectors(rows, name) for name in columns], normalise)


def features_of(maps: Sequence[npt.NDArray[Any]], normalise: Normalise) -> npt.NDArray[np.float64]:
    """The same of maps in memory, one array [n, d_i] per column: [n, sum of d_i]."""
    return quantise(np.concatenate([_normalised(one, normalise) for one in maps], axis=1))


def _normalised(maps: npt.NDArray[Any], normalise: Normalise) -> npt.NDArray[np.float64]:
    maps = maps.astype(np.float64)
    if normalise == "l2":
        norm = np.linalg.norm(maps, axis=1, keepdims=True)
    else:
        norm = maps.sum(1, keepdims=True) if normalise == "sum" else maps.max(1, keepdims=True)
    return np.asarray(np.divide(maps, norm, out=np.zeros_like(maps), where=norm > 0))


def targets(rows: pa.Table) -> npt.NDArray[np.float64]:
    """What the linear map learns: each image's largest box, on the exact grid. [n, 4]."""
    return quantise(np.array([largest(boxes) for boxes in true_boxes(rows)]).reshape(-1, 4))


@dataclass(frozen=True)
class LinearBox:
    """Map, normalise, multiply, resize about the centre, clip.

    Attributes:
        linear: features [d] -> corners [4].
        normalise: see ``features``.
        factors: of the box's width and height: (1, 1) is the paper's method as it stands.
        columns: see ``features``.
    """

    linear: LinearMap
    normalise: Normalise
    factors: tuple[float, float] = (1.0, 1.0)
    columns: Sequence[str] = ("map",)

    def predict(self, rows: pa.Table) -> Boxes:
        """[n, 4] unit xyxy."""
        return self.of(features(rows, self.normalise, self.columns))

    def of(self, inputs: npt.NDArray[np.float64]) -> Boxes:
        """The same from features [n, d]."""
        return tidy(resize(self.linear.predict(inputs), self.factors))


def ridge_candidates(maps: Sequence[LinearMap], inputs: npt.NDArray[np.float64]) -> Boxes:
    """The boxes of every map of a ridge path: features [n, d] -> [ridges, n, 4]."""
    return np.stack([tidy(linear.predict(inputs)) for linear in maps])


def size_candidates(
    linear: LinearMap, sizes: Sequence[float], inputs: npt.NDArray[np.float64]
) -> Boxes:
    """The boxes of one map under every pair of factors: [n, d] -> [len(sizes) ** 2, n, 4]."""
    pairs = np.array(list(product(sizes, sizes)))
    return tidy(resize(linear.predict(inputs)[None], pairs[:, None]))


def choose_ridge(ridges: Sequence[float], correct: npt.NDArray[np.int64]) -> int:
    """Index of the ridge with the best CorLoc; among equals the largest, the smoothest map."""
    return max(range(len(ridges)), key=lambda i: (correct[i], ridges[i]))


def choose_factors(sizes: Sequence[float], correct: npt.NDArray[np.int64]) -> tuple[float, float]:
    """The pair of factors with the best CorLoc; among equals the one nearest to (1, 1).

    Args:
        sizes: [k] the candidates of either factor.
        correct: [k * k] images right, in the order of ``itertools.product(sizes, sizes)``.
    """
    pairs = list(product(sizes, sizes))
    distance = np.abs(np.log(np.array(pairs))).sum(1)
    best = max(range(len(pairs)), key=lambda i: (correct[i], -distance[i]))
    return pairs[best]
