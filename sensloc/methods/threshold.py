"""Boxes straight from a heat map: nothing is learned but one number. numpy and scipy.ndimage.

- ``ThresholdBox``: the largest connected component of the map above a threshold, as class
  activation maps are read (Zhou et al., CVPR 2016).
- ``MassBox``: the box that leaves out the quantile q of the map's mass on every side.
- ``MaxBoxAcc``: what a map could give at most, MaxBoxAccV2 of Choe et al. (CVPR 2020): of all
  components' boxes the best, at the threshold that is best for the very images it scores. It is
  a property of the map, not the accuracy of a method.

A map is resized, then min-max normalised; components of {map >= threshold} are 8-connected; pixel
column x of s covers [x, x + 1] / s. A map that is flat is zero.

Where this departs from the sources:

- Zhou et al. keep what is above 20 % of the maximum; here the threshold is chosen on validation
  images.
- Choe et al.'s code (wsolevaluation) resizes bicubically, rounds maps to 256 grey levels and
  keeps what is above a threshold; here bilinear, not rounded, at least the threshold.
- Its thresholds step by .001, here by .01.
- Its boxes count pixels, last one included (+ 1), after rounding the ground truth down to pixels;
  here edges are continuous and nothing is rounded. It also ends a component's box one pixel late,
  and takes the holes' contours for boxes; here only components have boxes, and tight ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import ndimage

from sensloc.boxes import Boxes, area, iou
from sensloc.rows import vectors

Floats = npt.NDArray[np.float64]

SIDE = 56
"""Side of the maps that ``ThresholdBox`` looks at, in pixels."""
THRESHOLDS = tuple(k / 40 for k in range(2, 39))
"""Candidates of ``ThresholdBox``, of the normalised map: .05 to .95."""
QUANTILES = tuple(k / 200 for k in range(1, 41))
"""Candidates of ``MassBox``, of the map's mass: .005 to .2."""
DELTAS = (0.3, 0.5, 0.7)
"""The IoUs at which ``MaxBoxAcc`` counts a box as right, ascending."""
LEVELS = tuple(k / 100 for k in range(1, 101))
"""The thresholds of ``MaxBoxAcc``, ascending."""

WHOLE_IMAGE = (0.0, 0.0, 1.0, 1.0)
EIGHT_CONNECTED = np.ones((3, 3), bool)


def heatmaps(rows: pa.Table, column_name: str) -> Floats:
    """A column of maps, each min-max normalised.

    Args:
        rows: of the sensitivity table, without errors.
        column_name: of fixed-size lists, square maps row by row.

    Returns:
        float64 [n, h, h] in [0, 1]; a flat map is zero.

    Raises:
        ValueError: the maps are not square.
    """
    return _min_max(_square(rows, column_name))


def upsample(maps: npt.NDArray[Any], side: int) -> Floats:
    """Bilinear, pixels are centred on halves, edges repeated: [n, h, w] -> [n, side, side].

    It is ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``.
    """
    down, across = (_interpolation(size, side) for size in maps.shape[1:])
    return np.asarray(down @ maps @ across.T)


def largest_component(heat: Floats, thresholds: Sequence[float]) -> Boxes:
    """The box of the component of most pixels, the first in reading order of equals.

    Args:
        heat: [s, s], min-max normalised.
        thresholds: [t] in (0, 1].

    Returns:
        [t, 4]; the whole image for a flat map.
    """
    boxes = np.tile(WHOLE_IMAGE, (len(thresholds), 1))
    for box, threshold in zip(boxes, thresholds, strict=True):
        labels, found = _components(heat >= threshold)
        if len(found):
            box[:] = found[np.bincount(labels.ravel())[1:].argmax()] / len(heat)
    return boxes


def threshold_candidates(column: str, thresholds: Sequence[float], rows: pa.Table) -> Boxes:
    """The boxes of every ``ThresholdBox``: [t, n, 4]."""
    maps = heatmaps(rows, column)
    boxes = np.empty((len(thresholds), len(maps), 4))
    for i in range(len(maps)):
        boxes[:, i] = largest_component(_resized(maps[i], SIDE), thresholds)
    return boxes


def mass_candidates(column: str, quantiles: Sequence[float], rows: pa.Table) -> Boxes:
    """The boxes of every ``MassBox``: [q, n, 4]; the whole image for a map of zeros."""
    maps = _square(rows, column)
    q = np.asarray(quantiles, np.float64)
    x, y = (_crossings(maps.sum(axis), np.concatenate([q, 1 - q])) for axis in (1, 2))
    (x0, x1), (y0, y1) = np.split(x, 2), np.split(y, 2)
    boxes = np.stack([x0, y0, x1, y1], axis=-1)
    boxes[:, ~maps.any((1, 2))] = WHOLE_IMAGE
    return boxes


@dataclass(frozen=True)
class ThresholdBox:
    """The largest component of a map above a threshold.

    Attributes:
        column: of the maps.
        threshold: in (0, 1], of the map min-max normalised.
    """

    column: str
    threshold: float

    def predict(self, rows: pa.Table) -> Boxes:
        """[n, 4] unit xyxy."""
        return np.asarray(threshold_candidates(self.column, [self.threshold], rows)[0])


@dataclass(frozen=True)
class MassBox:
    """The central mass of a map, as it is: between two quantiles of its marginals.

    Attributes:
        column: of the maps.
        quantile: in (0, 0.5), of the mass, left out on each of the four sides.
    """

    column: str
    quantile: float

    def predict(self, rows: pa.Table) -> Boxes:
        """[n, 4] unit xyxy."""
        return np.asarray(mass_candidates(self.column, [self.quantile], rows)[0])


def choose(values: Sequence[float], correct: npt.NDArray[np.int64]) -> float:
    """The value with the best CorLoc; among equals the middle one, of two middle ones the first.

    Args:
        values: [k] ascending.
        correct: [k] images right.
    """
    best = np.flatnonzero(correct == np.max(correct))
    return float(values[best[(len(best) - 1) // 2]])


@dataclass(frozen=True)
class MaxBoxAcc:
    """MaxBoxAccV2: of maps, not of boxes. See above for what differs from Choe et al.

    Integer sums, so ``merge`` is associative and commutative to the bit.

    Attributes:
        n: images.
        counts: int64 [deltas, levels]: images where at this level of the map some component's
            box has at least this IoU with some ground-truth box.
    """

    n: int
    counts: npt.NDArray[np.int64]

    @classmethod
    def zeros(cls) -> Self:
        """The identity of ``merge``."""
        return cls(0, np.zeros((len(DELTAS), len(LEVELS)), np.int64))

    @classmethod
    def from_batch(cls, maps: npt.NDArray[Any], truth: Sequence[Boxes], side: int = 224) -> Self:
        """Count one batch.

        Args:
            maps: [n, h, w], of any range; a flat map is wrong everywhere.
            truth: n arrays [m_i, 4], m_i >= 1.
            side: of the maps as they are scored, in pixels.
        """
        counts = cls.zeros().counts
        for heat, boxes in zip(_min_max(np.asarray(maps, np.float64)), truth, strict=True):
            best = _best_iou_by_level(_resized(heat, side), np.asarray(boxes, np.float64))
            counts += best >= np.array(DELTAS)[:, None]
        return cls(len(maps), counts)

    def merge(self, other: Self) -> Self:
        """The images of both."""
        return type(self)(self.n + other.n, self.counts + other.counts)

    @property
    def per_delta(self) -> tuple[float, ...]:
        """At each of ``DELTAS`` the share of images right, in percent, at its own best level."""
        if self.n == 0:
            raise ValueError("MaxBoxAcc of no images")
        return tuple((100 * self.counts.max(1) / self.n).tolist())

    @property
    def value(self) -> float:
        """MaxBoxAccV2, in percent: the mean of ``per_delta``."""
        return sum(self.per_delta) / len(DELTAS)


def _best_iou_by_level(heat: Floats, truth: Boxes) -> Floats:
    """At each of ``LEVELS`` the best IoU of a component's box with a ground-truth box: [levels].

    IoUs below the first of ``DELTAS`` may come out as 0: a component too small for it, by area,
    is dropped. What it holds at higher levels is smaller still, so the next level is looked up
    only within the hull of the components that are kept.
    """
    side, best = len(heat), np.zeros(len(LEVELS))
    least = DELTAS[0] * area(truth).min() * side**2 * (1 - 1e-9)
    x0, y0, x1, y1 = 0, 0, side, side
    for i, level in enumerate(LEVELS):
        found = _components(heat[y0:y1, x0:x1] >= level)[1] + [x0, y0, x0, y0]
        found = found[area(found) >= least]
        if len(found) == 0:
            break
        (x0, y0), (x1, y1) = found[:, :2].min(0), found[:, 2:].max(0)
        best[i] = iou(found[:, None] / side, truth).max()
    return best


def _components(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Labels like ``mask``, from 1 in reading order, and boxes [c, 4] xyxy in pixel edges."""
    labels, _ = ndimage.label(mask, EIGHT_CONNECTED)
    slices = ndimage.find_objects(labels)
    edges = [(x.start, y.start, x.stop, y.stop) for y, x in slices]
    return labels, np.array(edges, np.int64).reshape(-1, 4)


def _crossings(density: Floats, levels: Floats) -> Floats:
    """Where the cumulative of [n, g] on the unit interval reaches shares [k] of it: [k, n].

    Linear within a cell; nan without mass.
    """
    reached = np.cumsum(density, axis=1)
    mass = levels[:, None] * reached[:, -1]
    cell = (reached < mass[..., None]).sum(-1)
    image = np.arange(len(density))
    with np.errstate(invalid="ignore"):
        beyond = (reached[image, cell] - mass) / density[image, cell]
    return np.asarray((cell + 1 - beyond) / density.shape[1])


def _interpolation(size: int, side: int) -> Floats:
    """The matrix [side, size] that resamples an axis linearly."""
    centres = np.clip((np.arange(side) + 0.5) * size / side - 0.5, 0, size - 1)
    return np.asarray(np.clip(1 - np.abs(centres[:, None] - np.arange(size)), 0, None))


def _min_max(maps: Floats) -> Floats:
    """Each map [..., h, w] stretched to [0, 1]; zeros where it is flat."""
    above = maps - maps.min((-2, -1), keepdims=True)
    top = above.max((-2, -1), keepdims=True)
    return np.asarray(np.divide(above, top, out=np.zeros_like(above), where=top > 0))


def _resized(heat: Floats, side: int) -> Floats:
    """One map [h, w] -> [side, side], both min-max normalised.

    Interpolation misses the extremes, so it is normalised again; and it rounds, so that only a
    flat map of zeros stays flat.
    """
    return _min_max(upsample(heat[None], side)[0])


def _square(rows: pa.Table, column_name: str) -> Floats:
    """A column of maps as it is: float64 [n, h, h]."""
    maps = vectors(rows, column_name).astype(np.float64)
    side = isqrt(maps.shape[1])
    if side**2 != maps.shape[1]:
        raise ValueError(f"column {column_name} has {maps.shape[1]} values, which is no square")
    return maps.reshape(-1, side, side)
