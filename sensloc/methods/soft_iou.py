"""The box of highest soft IoU with a map of shares: how much of each cell is foreground.

With p in [0, 1] the evidence of each place, a box's soft IoU is the sum of p inside it over its own
area plus the sum of p outside: what its IoU would be if p were the object's mask. Every box of a
grid is looked at, by one integral image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.ndimage import zoom

from sensloc.boxes import Boxes
from sensloc.heatmaps import region
from sensloc.rows import vectors

Floats = npt.NDArray[np.float64]

GRID = 28
"""Boxes have their edges on a grid of so many cells a side; a coarser map is interpolated."""

GAINS = (4.0, 6.0, 8.0, 10.0, 12.0)
POWERS = (0.75, 1.0, 1.5, 2.0)
"""Candidates: p is a logistic function of a cell's share less one half, times the gain, raised to
the power."""


@cache
def _spans(grid: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
    """Return the first and last edges of all spans of a grid, and the areas of their products."""
    first, last = np.triu_indices(grid + 1, 1)
    length = (last - first) / grid
    return first, last, length[:, None] * length


def best_box(evidence: Floats) -> Boxes:
    """Return the box of highest soft IoU: [g, g] in [0, 1] -> [4] unit xyxy.

    Of equals it is the first by its top, bottom, left and right edge.
    """
    grid = len(evidence)
    first, last, areas = _spans(grid)
    integral = np.zeros((grid + 1, grid + 1))
    integral[1:, 1:] = evidence.cumsum(0).cumsum(1) / grid**2
    rows = integral[last] - integral[first]
    inside = rows.take(last, 1)
    inside -= rows.take(first, 1)
    union = areas + integral[-1, -1]
    union -= inside
    y, x = divmod(int(np.divide(inside, union, out=union).argmax()), len(first))
    return np.array([first[x], first[y], last[x], last[y]]) / grid


def fine(shares: npt.NDArray[Any], grid: int = GRID) -> Floats:
    """Return maps on the grid of boxes: [n, h * h] -> float64 [n, g, g], g at least ``grid``.

    Raises:
        ValueError: The maps are not square.
    """
    side = isqrt(shares.shape[1])
    if side**2 != shares.shape[1]:
        raise ValueError(f"a map of {shares.shape[1]} values is no square")
    maps = shares.astype(np.float64).reshape(-1, side, side)
    if side >= grid or not len(maps):
        return maps
    factor = grid / side
    return np.asarray(zoom(maps, (1, factor, factor), order=1, grid_mode=True, mode="nearest"))


def evidence_of(shares: Floats, gain: float, power: float) -> Floats:
    """Return the evidence of shares, of any shape: see ``GAINS``."""
    return np.asarray((0.5 * (1 + np.tanh(gain * (shares - 0.5) / 2))) ** power)


def candidates() -> list[tuple[float, float]]:
    """Return the pairs of gain and power that are tried."""
    return list(product(GAINS, POWERS))


def choose(pairs: Sequence[tuple[float, float]], correct: Any) -> tuple[float, float]:
    """Return the pair of the best CorLoc; of equals the one nearest to the middle of all.

    Args:
        pairs: c of gain and power.
        correct: [c] How good each of them is, such as the images that it gets right.
    """
    middle = np.log(np.array(pairs)).mean(0)
    far = np.abs(np.log(np.array(pairs)) - middle).sum(1)
    best = max(range(len(pairs)), key=lambda i: (correct[i], -far[i]))
    return pairs[best]


@dataclass(frozen=True)
class SoftIoUBox:
    """The box of highest soft IoU with a map of shares.

    Attributes:
        column: The column of the maps.
        gain: How sharply a cell's share becomes evidence.
        power: What the evidence is raised to.
        part: Whether the maps show parts of the images, whose regions stand in another column.
    """

    column: str
    gain: float
    power: float
    part: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        """The column of the maps, and that of their regions."""
        return (self.column, *([region(self.column)] if self.part else []))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads."""
        return self.reads

    def predict(self, rows: pa.Table) -> Boxes:
        """Return one box per row: [n, 4] unit xyxy."""
        return self.of_maps({name: vectors(rows, name) for name in self.reads})

    def of_maps(self, maps: Mapping[str, npt.NDArray[Any]]) -> Boxes:
        """Return the boxes of maps in memory: [n, 4] unit xyxy.

        Args:
            maps: By column, arrays [n, h * h] of shares, and the regions [n, 4].
        """
        shares = fine(maps[self.column])
        found = [best_box(evidence_of(image, self.gain, self.power)) for image in shares]
        boxes = np.array(found).reshape(-1, 4)
        return placed(boxes, maps[region(self.column)]) if self.part else boxes


def placed(boxes: Boxes, regions: Boxes) -> Boxes:
    """Return boxes of regions as boxes of the images: [n, 4] and [n, 4] -> [n, 4] unit xyxy."""
    corner, side = regions[:, :2], regions[:, 2:] - regions[:, :2]
    return np.concatenate([corner + side * boxes[:, :2], corner + side * boxes[:, 2:]], axis=1)
