"""The foreground's read-out: least squares from what a pass says of a cell to the object's share.

An image is cut into P cells. Of each cell a pass gives d values, and the largest true box covers a
share of it, in [0, 1]. A *read-out* is a linear map from the d values to that share, learned from
many cells of many images: values and share are taken less their means *at that position*, so that
where the values say nothing the answer is the mean mask.

Every class has a read-out of its own, shrunk towards the one that all share: with w the shared
weights and r = y - w x the residuals of a class's own n cells, it is w + d, where d minimises

    sum (r - d x)^2 + k P |s d|^2

with s the standard deviation of each value, and k the *shrinkage*: so many images' worth of
evidence is needed to move away from what all classes share.

numpy only. What is learned from are sums, ``CellSums``, and they are exact: see ``quantise``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from sensloc.boxes import Boxes
from sensloc.sums import Sums

Array = npt.NDArray[np.float64]

QUANTUM = 2.0**-12
LIMIT = 4.0
EXACT_CELLS = 2**25
"""Products of two values are multiples of ``QUANTUM**2`` and at most ``LIMIT**2``: float64 adds so
many of them exactly. That is 171,000 images of 14 x 14 cells."""

SENSITIVITIES = 1e-3
"""The penalty on the values of one channel: heat maps, of which there are few."""


def quantise(values: npt.NDArray[Any]) -> Array:
    """Return values clipped to [-LIMIT, LIMIT] and rounded to multiples of ``QUANTUM``: float64."""
    clipped = np.clip(np.asarray(values, np.float64), -LIMIT, LIMIT)
    return np.asarray(np.rint(clipped / QUANTUM) * QUANTUM)


def covered(boxes: Boxes, grid: int) -> Array:
    """Return which share of each cell a box covers.

    Args:
        boxes: [n, 4] unit xyxy.
        grid: g, cells of a row and of a column.

    Returns:
        float64 [n, g * g] in [0, 1], row-major.
    """
    edges = np.arange(grid) / grid

    def along(low: Boxes, high: Boxes) -> Array:
        inside = np.minimum(high[:, None], edges + 1 / grid) - np.maximum(low[:, None], edges)
        return np.asarray(np.clip(inside * grid, 0, 1), np.float64)

    x, y = along(boxes[:, 0], boxes[:, 2]), along(boxes[:, 1], boxes[:, 3])
    return np.asarray((y[:, :, None] * x[:, None, :]).reshape(len(boxes), -1))


# --------------------------------------------------------------------------- sums


@dataclass(frozen=True)
class CellSums(Sums):
    """The sums over images from which read-outs are learned: a commutative monoid, to the bit.

    Attributes:
        n: The number of images.
        x: [P, d] The sum of the values at each position.
        y: [P] The sum of the shares at each position.
        xx: [d, d] The sum of x x^T over all cells.
        xy: [d] The sum of x y over all cells.
        yy: The sum of y^2 over all cells.
    """

    n: int
    x: Array
    y: Array
    xx: Array
    xy: Array
    yy: float

    @classmethod
    def zeros(cls, cells: int, values: int) -> Self:
        """Return the sums of no images, the identity of ``merge``."""
        x, y, xx = np.zeros((cells, values)), np.zeros(cells), np.zeros((values, values))
        return cls(0, x, y, xx, np.zeros(values), 0.0)

    @classmethod
    def from_batch(cls, values: npt.NDArray[Any], shares: npt.NDArray[Any]) -> Self:
        """Return the sums of some images.

        Args:
            values: [n, P, d], on the grid of ``quantise`` if the sums shall be exact.
            shares: [n, P], on it too.

        Raises:
            ValueError: The shapes are others.
        """
        x, y = np.asarray(values, np.float64), np.asarray(shares, np.float64)
        if x.ndim != 3 or y.shape != x.shape[:2]:
            raise ValueError(f"want [n, P, d] values and [n, P] shares, got {x.shape}, {y.shape}")
        cells, flat = x.reshape(-1, x.shape[2]), y.ravel()
        return cls(
            len(x), x.sum(0), y.sum(0), cells.T @ cells, cells.T @ flat, float((flat * flat).sum())
        )

    @property
    def means(self) -> "Means":
        """The mean values and shares at each position.

        Raises:
            ValueError: There are no images.
        """
        if self.n == 0:
            raise ValueError("no images: nothing to learn from")
        return Means(self.x / self.n, self.y / self.n)

    def about(self, means: "Means") -> "Moments":
        """Return the second moments about the means of these or of other images."""
        x, y = means.x, means.y
        cross = self.x.T @ x
        return Moments(
            self.n * len(y),
            self.xx - cross - cross.T + self.n * (x.T @ x),
            self.xy - self.x.T @ y - x.T @ self.y + self.n * (x.T @ y),
            self.yy - 2 * float(self.y @ y) + self.n * float(y @ y),
        )


@dataclass(frozen=True)
class Means:
    """The mean values x [P, d] and the mean shares y [P] at each position."""

    x: Array
    y: Array


@dataclass(frozen=True)
class Moments:
    """Sums of products, over n cells, of values and shares less their means.

    Attributes:
        n: The number of cells.
        xx: [d, d].
        xy: [d].
        yy: A number.
    """

    n: int
    xx: Array
    xy: Array
    yy: float

    @property
    def deviations(self) -> Array:
        """The standard deviation of each value: [d]; 1 where it does not vary."""
        variance = np.diag(self.xx) / max(self.n, 1)
        return np.sqrt(np.where(variance > 1e-12, variance, 1.0))

    def squared_error(self, weights: Array) -> Array:
        """Return the sum over cells of the squared residuals: [..., d] -> [...]."""
        return np.asarray(self.yy - 2 * weights @ self.xy + ((weights @ self.xx) * weights).sum(-1))

    def shared(self, deviations: Array, penalties: Array) -> Array:
        """Return the weights [d] that minimise the mean squared residual plus a penalty.

        Args:
            deviations: [d] Of each value.
            penalties: [d] On the square of each weight of a value of deviation 1.
        """
        ridge = np.outer(deviations, deviations) * self.n
        gram = self.xx / ridge + np.diag(penalties)
        return np.asarray(np.linalg.solve(gram, self.xy / deviations / self.n) / deviations)

    def own(
        self, weights: Array, deviations: Array, shrinkages: Sequence[float], cells: int
    ) -> Array:
        """Return weights of these cells' own, shrunk to shared ones.

        Args:
            weights: [k, d] Shared ones, of k penalties.
            deviations: [d] Of each value, among all cells.
            shrinkages: s of them, in images.
            cells: P, of an image.

        Returns:
            [k, s, d].
        """
        values, vectors = np.linalg.eigh(self.xx / np.outer(deviations, deviations))
        residual = (self.xy - weights @ self.xx) / deviations @ vectors
        damped = np.clip(values, 0, None) + cells * np.asarray(shrinkages, np.float64)[:, None]
        change = (residual[:, None] / damped) @ vectors.T / deviations
        return np.asarray(weights[:, None] + change)


# --------------------------------------------------------------------------- the read-out


@dataclass(frozen=True)
class Readout:
    """A learned read-out: what a pass says of each cell -> the share of it that is foreground.

    Attributes:
        blocks: Names of the readings whose values stand side by side, see ``sensloc.heatmaps``.
        grid: g, P is g * g.
        means_x: [P, d] float32.
        means_y: [P] float32.
        weights: [1 + c, d] float32, the shared ones first.
        classes: [c] int64, ascending: the network's outputs that have weights of their own.
    """

    blocks: tuple[str, ...]
    grid: int
    means_x: npt.NDArray[np.float32]
    means_y: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]

    def strengths(self, deviations: Array, widths: Sequence[int]) -> dict[str, float]:
        """Return how much each block moves the shared foreground: sqrt(sum (s_j w_j)^2).

        Args:
            deviations: [d] Of each value, s.
            widths: The values of each block.
        """
        ends = np.cumsum(widths)[:-1]
        parts = np.split(deviations * self.weights[0].astype(np.float64), ends)
        return {
            name: float(np.linalg.norm(part)) for name, part in zip(self.blocks, parts, strict=True)
        }

    def row(self, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the row of ``weights`` of each label: [n]; 0 for a class that has none."""
        at = np.searchsorted(self.classes, labels)
        known = np.append(self.classes, -1)[at] == labels
        return np.where(known, at + 1, 0)


def penalties(blocks: Sequence[bool], values: int, on_channels: float) -> Array:
    """Return the penalty of each of so many values: one on heat maps, another on channels.

    Args:
        blocks: Whether each block has many channels; those that have come last.
        values: d.
        on_channels: The penalty on the values of blocks with many channels.
    """
    maps = len(blocks) - sum(blocks)
    return np.concatenate([np.full(maps, SENSITIVITIES), np.full(values - maps, on_channels)])
