"""MaxBoxAccV2 of Choe et al. (CVPR 2020): what a heat map could give at most.

Of the boxes of all regions the best counts, at the threshold that is best for the very images that
it scores: it is a property of the map, not the accuracy of a method. Regions are those of
``regions``, of {map >= threshold}. Where this departs from the authors' code (wsolevaluation):

- It resizes bicubically, rounds maps to 256 grey levels and keeps what is above a threshold; here
  the resampling is bilinear, nothing is rounded, and what is at least the threshold is kept.
- Its thresholds step by .001, here by .01.
- Its boxes count pixels, the last one included (+ 1), after rounding the ground truth down to
  pixels; here edges are continuous and nothing is rounded. It also ends a region's box one pixel
  late, and takes the holes' contours for boxes; here only regions have boxes, and tight ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from sensloc.boxes import Boxes, area, iou
from sensloc.scoring.corloc import Floats
from sensloc.scoring.regions import components, resized, stretched
from sensloc.sums import Sums

DELTAS = (0.3, 0.5, 0.7)
"""The IoUs at which a box counts as right, ascending."""

LEVELS = tuple(k / 100 for k in range(1, 101))
"""The thresholds of the stretched map, ascending."""


@dataclass(frozen=True)
class MaxBoxAcc(Sums):
    """MaxBoxAccV2 of the heat maps of some images.

    It is made of integer sums, so ``merge`` is associative and commutative to the bit.

    Attributes:
        n: The number of images.
        counts: int64 [deltas, levels] The images where at this level of the map some region's
            box has at least this IoU with some ground-truth box.
    """

    n: int
    counts: npt.NDArray[np.int64]

    @classmethod
    def zeros(cls) -> Self:
        """Return the counts of no image, the identity of ``merge``."""
        return cls(0, np.zeros((len(DELTAS), len(LEVELS)), np.int64))

    @classmethod
    def from_batch(cls, maps: npt.NDArray[Any], truth: Sequence[Boxes], side: int = 224) -> Self:
        """Count one batch.

        Args:
            maps: [n, h, w] Of any range; a flat map is wrong everywhere.
            truth: n arrays [m_i, 4], m_i >= 1, unit xyxy.
            side: The side of the maps as they are scored, in pixels.
        """
        counts = cls.zeros().counts
        for heat, boxes in zip(stretched(np.asarray(maps, np.float64)), truth, strict=True):
            best = _best_iou_by_level(resized(heat, side), np.asarray(boxes, np.float64))
            counts += best >= np.array(DELTAS)[:, None]
        return cls(len(maps), counts)

    @property
    def per_delta(self) -> tuple[float, ...]:
        """The share of images right at each of ``DELTAS`` and its own best level, in percent.

        Raises:
            ValueError: There are no images.
        """
        if self.n == 0:
            raise ValueError("MaxBoxAcc of no images")
        return tuple((100 * self.counts.max(1) / self.n).tolist())

    @property
    def value(self) -> float:
        """MaxBoxAccV2, in percent: the mean of ``per_delta``."""
        return sum(self.per_delta) / len(DELTAS)


def _best_iou_by_level(heat: Floats, truth: Boxes) -> Floats:
    """Return the best IoU of a region's box with a ground-truth box at each level: [levels].

    IoUs below the first of ``DELTAS`` may come out as 0: a region too small for it, by area, is
    dropped. What it holds at higher levels is smaller still, so the next level is looked up only
    within the hull of the regions that are kept.
    """
    side, best = len(heat), np.zeros(len(LEVELS))
    least = DELTAS[0] * area(truth).min() * side**2 * (1 - 1e-9)
    x0, y0, x1, y1 = 0, 0, side, side
    for i, level in enumerate(LEVELS):
        regions = components(heat[y0:y1, x0:x1] >= level)[1] + [x0, y0, x0, y0]
        regions = regions[area(regions) >= least]
        if len(regions) == 0:
            break
        (x0, y0), (x1, y1) = regions[:, :2].min(0), regions[:, 2:].max(0)
        best[i] = iou(regions[:, None] / side, truth).max()
    return best
