"""CC, the colour contrast of windows: how unlike the colours inside are to those around."""

from collections.abc import Sequence

import numpy as np
from skimage.color import rgb2lab

from sensloc.baselines.objectness.windows import (
    Floats,
    Integers,
    Pixels,
    label_counts,
    pixel_corners,
)
from sensloc.boxes import Boxes

LAB_CELLS = (4, 8, 8)
"""Histogram cells of L in [0, 100] and of a and b in [-120, 120]."""


def colour_contrast(pixels: Pixels, windows: Boxes, thetas: Sequence[float]) -> Floats:
    """Return CC: the chi-squared distance between the colours inside a window and those around it.

    Args:
        pixels: [H, W, 3].
        windows: [w, 4] unit xyxy.
        thetas: t sizes of the surround, see ``Thetas.cc``.

    Returns:
        float [w, t] in [0, 1]; 0 where a window has no surround.
    """
    height, width = pixels.shape[:2]
    corners = pixel_corners(windows, height, width)
    grown = [surround(corners, theta, height, width) for theta in thetas]
    inside, *outer = label_counts(*lab_cells(pixels), [corners, *grown])
    return np.stack([_chi_squared(inside, whole - inside) for whole in outer], axis=1)


def lab_cells(pixels: Pixels) -> tuple[Integers, int]:
    """Return the CIELAB histogram cell of each pixel, int [H, W], and how many are in use."""
    lab = (rgb2lab(pixels) - [0, -120, -120]) / [100, 240, 240]
    cells = np.clip((lab * LAB_CELLS).astype(np.int64), 0, np.array(LAB_CELLS) - 1)
    flat = np.ravel_multi_index(tuple(np.moveaxis(cells, 2, 0)), LAB_CELLS)
    used, index = np.unique(flat, return_inverse=True)
    return index.reshape(flat.shape), len(used)


def surround(corners: Integers, theta: float, height: int, width: int) -> Integers:
    """Grow each window by theta percent of its sides and clip it: int [w, 4] -> int [w, 4]."""
    grow = np.rint((corners[:, 2:] - corners[:, :2]) * theta / 200).astype(np.int64)
    low = np.maximum(corners[:, :2] - grow, 0)
    high = np.minimum(corners[:, 2:] + grow, np.array([width, height]))
    return np.concatenate([low, high], axis=1)


def _chi_squared(a: Integers, b: Integers) -> Floats:
    """Return half the chi-squared distance of histograms: [w, K] each -> [w]; 0 if one is empty."""
    p, q = (counts / np.maximum(counts.sum(1, keepdims=True), 1) for counts in (a, b))
    total = p + q
    terms = np.divide((p - q) ** 2, total, out=np.zeros_like(total), where=total > 0)
    return np.asarray(np.where((a.any(1)) & (b.any(1)), terms.sum(1) / 2, 0.0))
