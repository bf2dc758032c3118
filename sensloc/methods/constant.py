"""The same box for every image: what a method must beat to have looked at the image at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pyarrow as pa

from sensloc.boxes import Boxes, largest, tidy
from sensloc.scoring.corloc import best_iou

CHUNK = 2_000_000
"""Candidate-image pairs scored at once; they bound the memory of ``tuned`` to about 200 MB."""

MOST_IMAGES = 100_000
"""Images for ``tuned`` at most (200 MB), drawn where there are more: a standard error of 0.16."""

COARSE_IMAGES = 2_000
"""Images that the coarse grid of ``tuned`` is scored on."""


@dataclass(frozen=True)
class ConstantBox:
    """The same box for every image.

    Attributes:
        box: x0, y0, x1, y1 in the unit square.
    """

    box: tuple[float, float, float, float]

    @property
    def reads(self) -> tuple[str, ...]:
        """No column."""
        return ()

    def predict(self, rows: pa.Table) -> Boxes:
        """Return the box, n times: [n, 4] unit xyxy."""
        return np.tile(np.asarray(self.box), (len(rows), 1))


@dataclass(frozen=True)
class ClassBox:
    """The same box for every image of a class: the class is known, the image is not looked at.

    Attributes:
        boxes: By wnid, x0, y0, x1, y1 in the unit square.
        other: The box of every other class.
    """

    boxes: Mapping[str, tuple[float, ...]]
    other: tuple[float, ...]

    @property
    def reads(self) -> tuple[str, ...]:
        """No column that could lack a value."""
        return ()

    def predict(self, rows: pa.Table) -> Boxes:
        """Return the box of each row's class: [n, 4] unit xyxy."""
        boxes = [self.boxes.get(wnid, self.other) for wnid in rows["wnid"].to_pylist()]
        return np.array(boxes, np.float64).reshape(-1, 4)


def class_means(sums: Mapping[str, tuple[int, Boxes]], shrinkage: float) -> ClassBox:
    """Return each class's mean box, mixed with ``shrinkage`` images of the mean box of all.

    Args:
        sums: By wnid, the number of its training images and the sum [4] of their boxes.
        shrinkage: 0 gives the plain mean, infinity the same box for every class.
    """
    mean = sum(total for _, total in sums.values()) / sum(n for n, _ in sums.values())
    boxes = {}
    for wnid, (n, total) in sums.items():
        share = n / (n + shrinkage)
        boxes[wnid] = tuple((share * total / n + (1 - share) * mean).tolist())
    return ClassBox(boxes, tuple(np.asarray(mean).tolist()))


def centre_mean(mean_target: Boxes) -> ConstantBox:
    """Return the paper's baseline: the centred box of mean width and height.

    Args:
        mean_target: [4] The mean of the training boxes' corners.
    """
    half = (mean_target[2:] - mean_target[:2]) / 2
    return ConstantBox(tuple(np.concatenate([0.5 - half, 0.5 + half]).tolist()))


def tuned(truth: Sequence[Boxes], threshold: float) -> ConstantBox:
    """Return the constant box with the best CorLoc on the training images.

    A coarse grid over centre and size is tried on some of the images; then, from the better of its
    best and the mean box, a pattern search on all of them that halves its step.

    Args:
        truth: n arrays [m_i, 4], the boxes of the training images, in any order.
        threshold: The IoU from which a box is right.
    """
    truth = sorted(truth, key=lambda boxes: boxes.tobytes())
    sample = truth[:: -(-len(truth) // COARSE_IMAGES)]
    sizes, centres = np.linspace(0.1, 1.0, 10), np.linspace(0.1, 0.9, 9)
    coarse, _ = _best(np.array(list(product(centres, centres, sizes, sizes))), sample, threshold)
    x0, y0, x1, y1 = np.mean([largest(boxes) for boxes in truth], axis=0)
    mean = ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)
    best, best_score = _best(np.array([coarse, mean]), truth, threshold)
    for step in (0.05, 0.025, 0.0125):
        while True:
            moves = np.array(list(product((0.0, -step, step), repeat=4)))
            moved, score = _best(best + moves, truth, threshold)
            if score <= best_score:
                break
            best, best_score = moved, score
    return ConstantBox(tuple(_corners(best).tolist()))


def _corners(centre_size: Boxes) -> Boxes:
    """Turn [..., 4] cx cy w h into xyxy, clipped to the unit square."""
    centre, half = centre_size[..., :2], centre_size[..., 2:] / 2
    return tidy(np.concatenate([centre - half, centre + half], axis=-1))


def _best(candidates: Boxes, truth: Sequence[Boxes], threshold: float) -> tuple[Boxes, float]:
    """Return the candidate of [k, 4] (cx cy w h) with the most images right, and its score.

    The score is that number plus half the mean IoU (under 1): it decides between equals, so that
    a box is not chosen at the very edge of being right.
    """
    size = max(1, CHUNK // len(truth))
    scores = []
    for chunk in np.array_split(candidates, -(-len(candidates) // size)):
        best = best_iou(_repeat(_corners(chunk), len(truth)), truth)
        scores.append((best >= threshold).sum(-1) + best.mean(-1) / 2)
    score = np.concatenate(scores)
    return candidates[score.argmax()], float(score.max())


def _repeat(boxes: Boxes, n: int) -> Boxes:
    """Repeat boxes without a copy: [k, 4] -> [k, n, 4]."""
    return np.broadcast_to(boxes[:, None], (len(boxes), n, 4))
