"""SS, superpixels straddling: how little the superpixels of an image cross a window's edge."""

import numpy as np
from skimage.segmentation import felzenszwalb

from sensloc.baselines.objectness.windows import (
    Floats,
    Integers,
    Pixels,
    label_counts,
    pixel_area,
    pixel_corners,
)
from sensloc.boxes import Boxes


def superpixels(pixels: Pixels, theta: float) -> Integers:
    """Return Felzenszwalb and Huttenlocher's segments (IJCV 2004), numbered from 0: int [H, W].

    Smoothing and the smallest segment follow the image's size, as in the authors' release.
    """
    factor = float(np.sqrt(pixels.shape[0] * pixels.shape[1] / 60_000))
    segments = felzenszwalb(
        pixels, scale=theta, sigma=0.5 * factor, min_size=max(1, round(200 * factor))
    )
    return np.asarray(segments, np.int64)


def superpixel_straddling(segments: Integers, windows: Boxes) -> Floats:
    """Return SS: 1 minus the share of the window that straddling superpixels would have to give up.

    Args:
        segments: int [H, W], numbered from 0.
        windows: [w, 4] unit xyxy.

    Returns:
        float [w] in [0, 1]; 1 where every superpixel is wholly inside or wholly outside.
    """
    corners = pixel_corners(windows, *segments.shape)
    sizes = np.bincount(segments.reshape(-1))
    (inside,) = label_counts(segments, len(sizes), [corners])
    straddling = np.minimum(inside, sizes - inside).sum(1)
    return np.asarray(1 - straddling / pixel_area(corners))
