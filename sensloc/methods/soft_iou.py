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

COARSE = 2
"""Edges of the coarser grid, whose best box says what the others must reach."""

ROUNDING = 1e-9
"""Far above the rounding of the sums, as a share of them."""

GAINS = (4.0, 6.0, 8.0, 10.0, 12.0)
POWERS = (0.75, 1.0, 1.5, 2.0)
"""Candidates: p is a logistic function of a cell's share less one half, times the gain, raised to
the power."""


@cache
def _spans(grid: int, step: int = 1) -> npt.NDArray[np.int64]:
    """Return the first and last edges of all spans of a grid [2, s], on every ``step``-th edge."""
    return np.stack(np.triu_indices(grid // step + 1, 1)) * step


def best_box(evidence: Floats) -> Boxes:
    """Return the box of highest soft IoU: [g, g] in [0, 1] -> [4] unit xyxy.

    Of equals it is the first by its top, bottom, left and right edge. Evidence is at most 1, so a
    box's soft IoU is at most the share of all evidence that its rows hold, or its columns: rows and
    columns that hold too little for the best box of a coarser grid are not looked at.
    """
    grid = len(evidence)
    integral = np.zeros((grid + 1, grid + 1))
    integral[1:, 1:] = evidence.cumsum(0).cumsum(1) / grid**2
    coarse = _spans(grid, min(COARSE, grid))
    enough = _soft_ious(integral, coarse, coarse).max() * integral[-1, -1] * (1 - ROUNDING)
    first, last = spans = _spans(grid)
    y, x = (
        spans[:, held[last] - held[first] >= enough] for held in (integral[:, -1], integral[-1])
    )
    best = int(_soft_ious(integral, y, x).argmax())
    (top, bottom), (left, right) = y[:, best // x.shape[1]], x[:, best % x.shape[1]]
    return np.array([left, top, right, bottom]) / grid


def _soft_ious(
    integral: Floats, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> Floats:
    """Return the soft IoU of boxes of an integral image: spans [2, r] and [2, c] -> [r, c]."""
    (top, bottom), (left, right), grid = rows, columns, len(integral) - 1
    held = integral[bottom] - integral[top]
    inside = held.take(right, 1)
    inside -= held.take(left, 1)
    union = ((bottom - top) / grid)[:, None] * ((right - left) / grid)
    union += integral[-1, -1]
    union -= inside
    ratio: Floats = np.divide(inside, union, out=union)
    return ratio


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
