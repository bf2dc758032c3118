"""Dense SIFT, a visual vocabulary, and box histograms: the paper's co-localization features.

Tang, Joulin, Li, Fei-Fei, CVPR 2014: descriptors of 4 x 4 spatial bins of 8 pixels on a grid of
step 4, a vocabulary of 1,000 words, and for each box the word histograms of a 3 x 3 grid and of
the whole box. No network, no weights file.

SIFT (Lowe 2004) at one scale and upright: OpenCV's ``SIFT.compute`` on a dense grid rounds to
uint8, blurs by its own scale space and is several times slower, because on a grid all
descriptors share their spatial bins: eight orientation maps are pooled once, and every
descriptor reads them.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics import pairwise_distances_argmin

from sensloc.boxes import Boxes

Floats = npt.NDArray[np.float32]

BIN, STEP = 8, 4
"""Sides of a spatial bin and of a cell of the grid of descriptors, in pixels."""
SIDE, ORIENTATIONS = 4, 8
"""A descriptor has SIDE x SIDE spatial bins of ORIENTATIONS each: 128 numbers."""
SMOOTHING = np.sqrt((BIN / 3) ** 2 - 0.25)
"""Sigma in pixels: the scale that belongs to this bin size, less the blur of any photograph."""
CELLS = 3
"""A box is cut into CELLS x CELLS for its histograms."""


def dense_sift(gray: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """Return upright SIFT descriptors on a grid.

    A pixel's gradient votes for its two nearest orientations (bin o looks along o * 45 degrees,
    from x towards y, which points down) and, with triangular weights, for its nearest spatial
    bins; bins weigh less away from the descriptor's centre (a Gaussian of two bins). A descriptor
    has unit L2 norm (an L1 normalisation before it would change nothing), or is zero where the
    image is constant.

    Args:
        gray: [h, w] numbers in any unit.

    Returns:
        Descriptors float32 [p, 128], ordered (row, column, orientation), and their centres
        float32 [p, 2], x and y as fractions of the image, row by row. p is 0 where the image is
        smaller than 25 x 25.
    """
    image = ndimage.gaussian_filter(np.asarray(gray, np.float32), SMOOTHING, mode="nearest")
    height, width = image.shape
    reach = BIN * (SIDE - 1)  # from the first to the last bin's centre
    tops, lefts = np.arange(0, height - reach, STEP), np.arange(0, width - reach, STEP)
    if len(tops) == 0 or len(lefts) == 0:
        return np.zeros((0, SIDE * SIDE * ORIENTATIONS), np.float32), np.zeros((0, 2), np.float32)

    dy, dx = np.gradient(image)
    magnitude = np.hypot(dx, dy)
    direction = np.arctan2(dy, dx) * np.float32(ORIENTATIONS / (2 * np.pi))
    triangle = 1 - np.abs(np.arange(1 - BIN, BIN)) / BIN
    offset = np.arange(SIDE) - (SIDE - 1) / 2
    window = np.exp(-(offset**2) / (2 * (SIDE / 2) ** 2))
    grid = np.empty((len(tops), len(lefts), SIDE, SIDE, ORIENTATIONS), np.float32)
    for o in range(ORIENTATIONS):
        turn = np.abs((direction - o + ORIENTATIONS / 2) % ORIENTATIONS - ORIENTATIONS / 2)
        votes = magnitude * np.clip(1 - turn, 0, None)
        for axis in (0, 1):
            votes = ndimage.convolve1d(votes, triangle, axis=axis, mode="constant")
        for row in range(SIDE):
            for column in range(SIDE):
                pooled = votes[np.ix_(tops + BIN * row, lefts + BIN * column)]
                grid[:, :, row, column, o] = pooled * (window[row] * window[column])

    y, x = np.meshgrid(tops, lefts, indexing="ij")
    centres = np.stack([x.ravel(), y.ravel()], axis=1) + (reach + 1) / 2
    descriptors = _unit(grid.reshape(-1, SIDE * SIDE * ORIENTATIONS))
    return descriptors, (centres / [width, height]).astype(np.float32)


def _unit(descriptors: Floats) -> Floats:
    """Return descriptors [p, d] of unit L2 norm; those that are zero stay zero."""
    norm = np.linalg.norm(descriptors, axis=1, keepdims=True)
    return np.asarray(np.divide(descriptors, norm, out=np.zeros_like(descriptors), where=norm > 0))


def vocabulary(descriptors: Floats, k: int = 1000, seed: int = 0) -> Floats:
    """Return visual words: the k-means centres of a sample of descriptors.

    Args:
        descriptors: [p, 128] with p >= k, from many images (some 100 per word are enough).
        k: words.
        seed: of the initialisation and of the mini-batches.

    Returns:
        float32 [k, 128].
    """
    means = MiniBatchKMeans(k, random_state=seed, batch_size=10 * k, n_init=1).fit(descriptors)
    return np.asarray(means.cluster_centers_, np.float32)


def nearest_words(descriptors: Floats, centres: Floats) -> npt.NDArray[np.int64]:
    """Return the word of each descriptor, its nearest centre: [p, 128], [k, 128] -> int64 [p]."""
    if len(descriptors) == 0:
        return np.zeros(0, np.int64)
    return np.asarray(pairwise_distances_argmin(descriptors, centres), np.int64)


def box_histograms(
    words: npt.NDArray[np.int64], positions: npt.NDArray[Any], boxes: Boxes, k: int
) -> Floats:
    """Return the histograms of the words in each box and in its cells.

    Args:
        words: [p] in [0, k).
        positions: [p, 2], x and y as fractions of the image.
        boxes: [m, 4] unit xyxy.
        k: words of the vocabulary.

    Returns:
        float32 [m, 10 * k], each row of sum 1: the histograms of the nine cells, row by row, then
        that of the whole box in the last k columns. A box without a descriptor is a row of zeros.
    """
    histograms = np.zeros((len(boxes), CELLS * CELLS + 1, k), np.float32)
    for histogram, box in zip(histograms, np.asarray(boxes, np.float64), strict=True):
        inside = ((positions >= box[:2]) & (positions < box[2:])).all(1)
        relative = (positions[inside] - box[:2]) / (box[2:] - box[:2])
        column, row = np.minimum((CELLS * relative).astype(np.int64), CELLS - 1).T
        index = (CELLS * row + column) * k + words[inside]
        histogram[:-1] = np.bincount(index, minlength=CELLS * CELLS * k).reshape(-1, k)
        histogram[-1] = histogram[:-1].sum(0)
        histogram /= max(histogram.sum(), 1)
    return histograms.reshape(len(boxes), -1)
