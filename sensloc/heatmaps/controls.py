"""Heat maps that need no network: two controls and a ceiling of what a heat map is worth."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sensloc.boxes import Boxes
from sensloc.dice import keys

Floats = npt.NDArray[np.floating]


def pooled_image(pixels: npt.NDArray[np.uint8], grid: int) -> npt.NDArray[np.float32]:
    """Return the mean colour of each cell of a grid: a control without any network.

    Args:
        pixels: [n, S, S, 3].
        grid: G.

    Returns:
        float32 [n, G * G * 3] in [0, 1].
    """
    edges = np.linspace(0, pixels.shape[1], grid + 1)
    weights = cell_overlaps(edges[:-1], edges[1:], pixels.shape[1]).T
    weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    rows = np.einsum("gs,nstc->ngtc", weights, pixels.astype(np.float32) / 255, optimize=True)
    cells = np.einsum("gt,nhtc->nhgc", weights, rows, optimize=True)
    return np.asarray(cells.reshape(len(pixels), -1))


def cell_overlaps(low: Floats, high: Floats, cells: int) -> Floats:
    """Return how much of each cell [i, i + 1] lies in each of n intervals: [cells, n]."""
    edge = np.arange(cells)[:, None]
    return np.asarray(np.clip(np.minimum(high, edge + 1) - np.maximum(low, edge), 0, None))


def box_mask(boxes: Boxes, grid: int) -> Floats:
    """Return how much of each cell a box covers: the map that knows the answer, a ceiling.

    Args:
        boxes: [n, 4] unit xyxy.
        grid: G.

    Returns:
        [n, G * G] in [0, 1], row-major.
    """
    x0, y0, x1, y1 = np.asarray(boxes, np.float64).T * grid
    across, down = cell_overlaps(x0, x1, grid), cell_overlaps(y0, y1, grid)
    return np.asarray(np.einsum("yn,xn->nyx", down, across).reshape(len(boxes), -1))


def partners(image_ids: Sequence[str], seed: int) -> npt.NDArray[np.int64]:
    """Return for each image the index of another one, which is drawn: [n].

    A permutation without fixed points, if there are two images or more.
    """
    return next_in_order(keys(image_ids, seed))


def next_in_order(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return for each hash the index of the next larger one; for the largest, of the smallest."""
    order = np.argsort(hashes, kind="stable")
    following = np.empty(len(order), np.int64)
    following[order] = np.roll(order, -1)
    return following
