"""Boxes straight from a heat map, where nothing is learned but one number.

- ``ThresholdBox``: the largest connected region of the map above a threshold, as class activation
  maps are read (Zhou et al., CVPR 2016). They keep what is above 20 % of the maximum; here the
  threshold is chosen on validation images.
- ``MassBox``: the box that leaves out the quantile q of the map's mass on every side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sensloc.boxes import Boxes
from sensloc.rows import vectors
from sensloc.scoring.corloc import Floats
from sensloc.scoring.regions import components, resized, stretched

SIDE = 56
"""The side of the maps that ``ThresholdBox`` looks at, in pixels."""

THRESHOLDS = tuple(k / 40 for k in range(2, 39))
"""The candidates of ``ThresholdBox``, of the stretched map: .05 to .95."""

QUANTILES = tuple(k / 200 for k in range(1, 41))
"""The candidates of ``MassBox``, of the map's mass: .005 to .2."""

WHOLE_IMAGE = (0.0, 0.0, 1.0, 1.0)


def heatmaps(rows: pa.Table, column_name: str) -> Floats:
    """Return a column of maps, each stretched to [0, 1].

    Args:
        rows: Rows with a map in that column.
        column_name: The column, of fixed-size lists: square maps row by row.

    Returns:
        float64 [n, h, h] in [0, 1]; a flat map is zero.

    Raises:
        ValueError: The maps are not square.
    """
    return stretched(_square(rows, column_name))


def largest_component(heat: Floats, thresholds: Sequence[float]) -> Boxes:
    """Return the box of the region of most pixels, of equals the first in reading order.

    Args:
        heat: [s, s] A stretched map.
        thresholds: [t] In (0, 1].

    Returns:
        [t, 4] unit xyxy; the whole image for a flat map.
    """
    boxes = np.tile(WHOLE_IMAGE, (len(thresholds), 1))
    for box, threshold in zip(boxes, thresholds, strict=True):
        labels, boxes_of = components(heat >= threshold)
        if len(boxes_of):
            box[:] = boxes_of[np.bincount(labels.ravel())[1:].argmax()] / len(heat)
    return boxes


def threshold_candidates(column: str, thresholds: Sequence[float], rows: pa.Table) -> Boxes:
    """Return the boxes of the ``ThresholdBox`` of every threshold: [t, n, 4]."""
    maps = heatmaps(rows, column)
    boxes = np.empty((len(thresholds), len(maps), 4))
    for i in range(len(maps)):
        boxes[:, i] = largest_component(resized(maps[i], SIDE), thresholds)
    return boxes


def mass_candidates(column: str, quantiles: Sequence[float], rows: pa.Table) -> Boxes:
    """Return the boxes of the ``MassBox`` of every quantile: [q, n, 4].

    A map of zeros gives the whole image.
    """
    maps = _square(rows, column)
    q = np.asarray(quantiles, np.float64)
    x, y = (_crossings(maps.sum(axis), np.concatenate([q, 1 - q])) for axis in (1, 2))
    (x0, x1), (y0, y1) = np.split(x, 2), np.split(y, 2)
    boxes = np.stack([x0, y0, x1, y1], axis=-1)
    boxes[:, ~maps.any((1, 2))] = WHOLE_IMAGE
    return boxes


@dataclass(frozen=True)
class ThresholdBox:
    """The largest region of a map above a threshold.

    Attributes:
        column: The column of the maps.
        threshold: In (0, 1], of the stretched map.
    """

    column: str
    threshold: float

    @property
    def reads(self) -> tuple[str, ...]:
        """The column of the maps."""
        return (self.column,)

    def predict(self, rows: pa.Table) -> Boxes:
        """Return one box per row: [n, 4] unit xyxy."""
        return np.asarray(threshold_candidates(self.column, [self.threshold], rows)[0])


@dataclass(frozen=True)
class MassBox:
    """The central mass of a map as it is: between two quantiles of its marginals.

    Attributes:
        column: The column of the maps.
        quantile: In (0, 0.5), the share of the mass that is left out on each of the four sides.
    """

    column: str
    quantile: float

    @property
    def reads(self) -> tuple[str, ...]:
        """The column of the maps."""
        return (self.column,)

    def predict(self, rows: pa.Table) -> Boxes:
        """Return one box per row: [n, 4] unit xyxy."""
        return np.asarray(mass_candidates(self.column, [self.quantile], rows)[0])


def choose(values: Sequence[float], correct: npt.NDArray[np.int64]) -> float:
    """Return the value with the best CorLoc; of equals the (first) middle one.

    Args:
        values: [k] The candidates, ascending.
        correct: [k] The images that each of them gets right.
    """
    best = np.flatnonzero(correct == np.max(correct))
    return float(values[best[(len(best) - 1) // 2]])


def _crossings(density: Floats, levels: Floats) -> Floats:
    """Return where the cumulative of densities [n, g] reaches shares [k] of their mass: [k, n].

    The densities are on the unit interval and constant within a cell; nan without mass.
    """
    reached = np.cumsum(density, axis=1)
    mass = levels[:, None] * reached[:, -1]
    cell = (reached < mass[..., None]).sum(-1)
    image = np.arange(len(density))
    with np.errstate(invalid="ignore"):
        beyond = (reached[image, cell] - mass) / density[image, cell]
    return np.asarray((cell + 1 - beyond) / density.shape[1])


def _square(rows: pa.Table, column_name: str) -> Floats:
    """Return a column of maps as it is: float64 [n, h, h]."""
    maps = vectors(rows, column_name).astype(np.float64)
    side = isqrt(maps.shape[1])
    if side**2 != maps.shape[1]:
        raise ValueError(f"column {column_name} has {maps.shape[1]} values, which is no square")
    return maps.reshape(-1, side, side)
