"""The paper's method: a linear map from heat maps to the four corners of a box."""

from collections.abc import Mapping, Sequence
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
    """Return what a linear map sees of each row: its maps, normalised, on ``quantise``'s grid.

    Args:
        rows: Rows of the sensitivity table or of ``compare/maps``, without errors.
        normalise: "l2", "sum" or "max": each map is divided by its own, since the derivative's
            size says how sure the classifier is, not where the object is.
        columns: The columns of the maps, whose values are not negative; their features stand side
            by side.

    Returns:
        float64 [n, d], d the sum of the maps' cells.
    """
    return features_of([vectors(rows, name) for name in columns], normalise)


def features_of(maps: Sequence[npt.NDArray[Any]], normalise: Normalise) -> npt.NDArray[np.float64]:
    """Return what a linear map sees of maps in memory, see ``features``.

    Args:
        maps: One array [n, d_i] per column.
        normalise: See ``features``.

    Returns:
        float64 [n, sum of d_i].
    """
    return quantise(np.concatenate([_normalised(part, normalise) for part in maps], axis=1))


def _normalised(maps: npt.NDArray[Any], normalise: Normalise) -> npt.NDArray[np.float64]:
    maps = maps.astype(np.float64)
    if normalise == "l2":
        norm = np.linalg.norm(maps, axis=1, keepdims=True)
    else:
        norm = maps.sum(1, keepdims=True) if normalise == "sum" else maps.max(1, keepdims=True)
    return np.asarray(np.divide(maps, norm, out=np.zeros_like(maps), where=norm > 0))


def targets(rows: pa.Table) -> npt.NDArray[np.float64]:
    """Return what a linear map learns: each image's largest box, on ``quantise``'s grid: [n, 4]."""
    return quantise(np.array([largest(boxes) for boxes in true_boxes(rows)]).reshape(-1, 4))


@dataclass(frozen=True)
class LinearBox:
    """The box that a linear map gives: normalise, multiply, resize about the centre, clip.

    Attributes:
        linear: The map from features [d] to corners [4].
        normalise: See ``features``.
        factors: What the box's width and height are multiplied by; (1, 1) is the paper's method as
            it stands, others are its calibration.
        columns: The columns of the heat maps, in the order of the features.
    """

    linear: LinearMap
    normalise: Normalise
    factors: tuple[float, float] = (1.0, 1.0)
    columns: tuple[str, ...] = ("map",)

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns of the heat maps."""
        return self.columns

    def predict(self, rows: pa.Table) -> Boxes:
        """Return one box per row: [n, 4] unit xyxy."""
        return self.of(features(rows, self.normalise, self.columns))

    def of_maps(self, maps: Mapping[str, npt.NDArray[Any]]) -> Boxes:
        """Return the boxes of maps in memory: [n, 4] unit xyxy.

        Args:
            maps: By column, arrays [n, d_i] of finite values.
        """
        return self.of(features_of([maps[name] for name in self.columns], self.normalise))

    def of(self, inputs: npt.NDArray[np.float64]) -> Boxes:
        """Return the boxes of features [n, d]: [n, 4] unit xyxy."""
        return tidy(resize(self.linear.predict(inputs), self.factors))


def ridge_candidates(maps: Sequence[LinearMap], inputs: npt.NDArray[np.float64]) -> Boxes:
    """Return the boxes that every map of a ridge path gives to features [n, d]: [ridges, n, 4]."""
    return np.stack([tidy(linear.predict(inputs)) for linear in maps])


def size_candidates(
    linear: LinearMap, sizes: Sequence[float], inputs: npt.NDArray[np.float64]
) -> Boxes:
    """Return the boxes of features [n, d] under every pair of factors: [len(sizes) ** 2, n, 4]."""
    pairs = np.array(list(product(sizes, sizes)))
    return tidy(resize(linear.predict(inputs)[None], pairs[:, None]))


def choose_ridge(ridges: Sequence[float], correct: npt.NDArray[np.int64]) -> int:
    """Return the index of the ridge with the best CorLoc; of equals the largest, the smoothest map.

    Args:
        ridges: [k] The candidates.
        correct: [k] The images that each of them gets right.
    """
    return max(range(len(ridges)), key=lambda i: (correct[i], ridges[i]))


def choose_factors(sizes: Sequence[float], correct: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return the pair of factors with the best CorLoc; of equals the one nearest to (1, 1).

    Args:
        sizes: [k] The candidates of either factor.
        correct: [k * k] The images right, in the order of ``itertools.product(sizes, sizes)``.
    """
    pairs = list(product(sizes, sizes))
    distance = np.abs(np.log(np.array(pairs))).sum(1)
    best = max(range(len(pairs)), key=lambda i: (correct[i], -distance[i]))
    return pairs[best]
