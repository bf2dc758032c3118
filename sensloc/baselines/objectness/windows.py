"""Windows of an image: their pixels, sums over them, drawing, overlap with objects, suppression."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sensloc.boxes import Boxes, iou

Pixels = npt.NDArray[np.uint8]
"""uint8 [H, W, 3], RGB."""
Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.integer[Any]]

POSITIVE_IOU = 0.5
"""A window of at least this IoU with a box is an example of an object."""


# --------------------------------------------------------------------------- sums over pixels


def pixel_corners(windows: Boxes, height: int, width: int) -> Integers:
    """Round windows to pixel edges; each keeps at least one pixel.

    Args:
        windows: [w, 4] unit xyxy.
        height: of the image or map, in pixels.
        width: of the image or map, in pixels.

    Returns:
        int [w, 4], x0 y0 x1 y1.
    """
    rounded = np.rint(windows * np.array([width, height, width, height])).astype(np.int64)
    low = np.clip(rounded[:, :2], 0, np.array([width, height]) - 1)
    high = np.clip(rounded[:, 2:], low + 1, np.array([width, height]))
    return np.concatenate([low, high], axis=1)


def pixel_area(corners: Integers) -> Integers:
    """Return the number of pixels in each window: int [w, 4] -> int [w]."""
    return (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])


def integral_image(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the sums over every [0:y, 0:x]: [H, W, ...] -> [H + 1, W + 1, ...]."""
    padded = np.zeros((values.shape[0] + 1, values.shape[1] + 1, *values.shape[2:]), values.dtype)
    padded[1:, 1:] = values
    np.cumsum(padded, axis=0, out=padded)
    np.cumsum(padded, axis=1, out=padded)
    return padded


def window_sums(integral: npt.NDArray[Any], corners: Integers) -> npt.NDArray[Any]:
    """Return the sum inside each window, in four reads.

    Args:
        integral: [H + 1, W + 1, ...], see ``integral_image``.
        corners: int [w, 4], x0 y0 x1 y1 in pixel edges.

    Returns:
        [w, ...].
    """
    x0, y0, x1, y1 = corners.T
    return np.asarray(integral[y1, x1] - integral[y0, x1] - integral[y1, x0] + integral[y0, x0])


def label_counts(labels: Integers, count: int, corners: Sequence[Integers]) -> list[Integers]:
    """Count the pixels of each label in each window.

    Args:
        labels: int [H, W], values in [0, count).
        count: of labels, K.
        corners: sets of windows, int [w, 4].

    Returns:
        int [w, K] for each set.
    """
    one_hot = np.zeros((*labels.shape, count), np.int32)
    np.put_along_axis(one_hot, labels[..., None], 1, axis=2)
    integral = integral_image(one_hot)
    return [window_sums(integral, windows) for windows in corners]


# --------------------------------------------------------------------------- drawing


def image_seed(image_id: str) -> int:
    """Return the seed of an image's windows: 64 bits of a hash of its id."""
    return int.from_bytes(hashlib.blake2b(image_id.encode(), digest_size=8).digest(), "big")


def random_windows(seed: int, count: int) -> Boxes:
    """Draw windows whose two edges on each axis are uniform: [count, 4] unit xyxy."""
    edges = np.random.default_rng(seed).random((count, 2, 2))
    return np.concatenate([edges.min(1), edges.max(1)], axis=1)


def draw_cells(weights: Floats, uniform: Floats) -> tuple[Integers, Integers]:
    """Turn numbers in [0, 1) into cells in proportion to weights >= 0; evenly if all are 0.

    Args:
        weights: [p, q].
        uniform: [n].

    Returns:
        Row and column indices, [n] each.
    """
    flat = np.maximum(weights.reshape(-1).astype(np.float64), 0)
    cumulative = (flat if flat.any() else flat + 1).cumsum()
    picks = cumulative.searchsorted(uniform * cumulative[-1], side="right")
    row, column = np.unravel_index(np.minimum(picks, flat.size - 1), weights.shape)
    return row, column


# --------------------------------------------------------------------------- overlap


def on_object(windows: Boxes, truth: Boxes) -> npt.NDArray[np.bool_]:
    """Tell which windows [w, 4] cover one of the image's boxes [m, 4]: bool [w]."""
    return np.asarray((iou(windows[:, None], truth[None]) >= POSITIVE_IOU).any(1))


def count_found(proposed: Boxes, truth: Boxes, at: Sequence[int]) -> npt.NDArray[np.int64]:
    """Count the boxes of an image that its first proposals cover.

    Args:
        proposed: [k, 4], best first.
        truth: [m, 4].
        at: how many of the proposals to look at.

    Returns:
        int64 [len(at)]; over all images and over the number of boxes it is recall.
    """
    covers = iou(truth[:, None], proposed[None]) >= POSITIVE_IOU
    return np.array([covers[:, :first].any(1).sum() for first in at], np.int64)


def nms(boxes: Boxes, scores: Floats, threshold: float, count: int) -> Integers:
    """Keep the best boxes that overlap no better one: greedy non-maximum suppression.

    Args:
        boxes: [n, 4] xyxy.
        scores: [n]; among equals the first box wins.
        threshold: a box of a larger IoU with a kept one is dropped.
        count: stop when so many are kept.

    Returns:
        int [k], indices of the kept boxes, best first.
    """
    left = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(left) and len(kept) < count:
        kept.append(int(left[0]))
        left = left[1:][iou(boxes[left[1:]], boxes[left[0]]) <= threshold]
    return np.array(kept, np.int64)
