"""The same box for every image: what a method must beat to have looked at the image at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pyarrow as pa

from sensloc.boxes import Boxes, tidy
from sensloc.corloc import count_correct

CHUNK = 2_000_000
"""Candidate-image pairs scored at once: bounds the memory of ``tuned`` to about 200 MB."""


@dataclass(frozen=True)
class ConstantBox:
    """One box, x0 y0 x1 y1."""

    box: tuple[float, float, float, float]

    def predict(self, rows: pa.Table) -> Boxes:
        """[n, 4]: the box, n times."""
        return np.tile(np.asarray(self.box), (len(rows), 1))


def centre_mean(mean_target: Boxes) -> ConstantBox:
    """The paper's baseline: the centred box of mean width and height.

    Args:
        mean_target: [4] the mean of the training boxes' corners.
    """
    half = (mean_target[2:] - mean_target[:2]) / 2
    return ConstantBox(tuple(np.concatenate([0.5 - half, 0.5 + half]).tolist()))


def tuned(truth: Sequence[Boxes], threshold: float) -> ConstantBox:
    """The constant box with the best CorLoc on the training images.

    A coarse grid over width, height and centre, then a pattern search that halves its step.

    Args:
        truth: n arrays [m_i, 4], the boxes of the training images.
        threshold: of IoU.
    """
    sizes, centres = np.linspace(0.2, 1.0, 9), np.linspace(0.4, 0.6, 3)
    best, best_count = _best(
        np.array(list(product(centres, centres, sizes, sizes))), truth, threshold
    )
    for step in (0.05, 0.025, 0.0125):
        while True:
            moves = np.array(list(product((0.0, -step, step), repeat=4)))
            moved, count = _best(best + moves, truth, threshold)
            if count <= best_count:
                break
            best, best_count = moved, count
    return ConstantBox(tuple(_corners(best).tolist()))


def _corners(centre_size: Boxes) -> Boxes:
    """[..., 4] cx cy w h -> xyxy, clipped."""
    centre, half = centre_size[..., :2], centre_size[..., 2:] / 2
    return tidy(np.concatenate([centre - half, centre + half], axis=-1))


def _best(candidates: Boxes, truth: Sequence[Boxes], threshold: float) -> tuple[Boxes, int]:
    """The first candidate [k, 4] (cx cy w h) with the most images right, and that number."""
    size = max(1, CHUNK // len(truth))
    counts = np.concatenate(
        [
            count_correct(_repeat(_corners(chunk), len(truth)), truth, threshold)
            for chunk in np.array_split(candidates, -(-len(candidates) // size))
        ]
    )
    return candidates[counts.argmax()], int(counts.max())


def _repeat(boxes: Boxes, n: int) -> Boxes:
    """[k, 4] -> [k, n, 4], without a copy."""
    return np.broadcast_to(boxes[:, None], (len(boxes), n, 4))
