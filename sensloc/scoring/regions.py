"""The connected regions of a heat map, for boxes that are read from it and for its own score.

A map is stretched to [0, 1], resized, and stretched again; pixel column x of s covers
[x, x + 1] / s.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sensloc.scoring.corloc import Floats

EIGHT_CONNECTED = np.ones((3, 3), bool)


def stretched(maps: Floats) -> Floats:
    """Return each map [..., h, w] stretched to [0, 1]; a flat map is zero."""
    above = maps - maps.min((-2, -1), keepdims=True)
    top = above.max((-2, -1), keepdims=True)
    return np.asarray(np.divide(above, top, out=np.zeros_like(above), where=top > 0))


def upsample(maps: npt.NDArray[Any], side: int) -> Floats:
    """Resample maps bilinearly, edges repeated: [n, h, w] -> [n, side, side].

    Pixels are centred on halves, as in ``torch.nn.functional.interpolate(mode="bilinear",
    align_corners=False)``.
    """
    down, across = (_interpolation(size, side) for size in maps.shape[1:])
    return np.asarray(down @ maps @ across.T)


def resized(heat: Floats, side: int) -> Floats:
    """Resample one stretched map: [h, w] -> [side, side], stretched again.

    It is stretched again since interpolation misses the extremes; and since interpolation rounds,
    of flat maps only one of zeros stays flat.
    """
    return stretched(upsample(heat[None], side)[0])


def components(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Find the 8-connected regions of a mask [h, w].

    Returns:
        Each pixel's label, [h, w]: 0 outside, from 1 on in reading order; and the regions' boxes,
        [c, 4] xyxy in pixel edges.
    """
    labels, _ = ndimage.label(mask, EIGHT_CONNECTED)
    slices = ndimage.find_objects(labels)
    edges = [(x.start, y.start, x.stop, y.stop) for y, x in slices]
    return labels, np.array(edges, np.int64).reshape(-1, 4)


def _interpolation(size: int, side: int) -> Floats:
    """Return the matrix [side, size] that resamples an axis linearly."""
    centres = np.clip((np.arange(side) + 0.5) * size / side - 0.5, 0, size - 1)
    return np.asarray(np.clip(1 - np.abs(centres[:, None] - np.arange(size)), 0, None))
