"""CorLoc, from integer counts: exact under any schedule.

A prediction is right when its IoU with any of the image's ground-truth boxes is at least the
threshold (0.5: the paper's "at least half"), in continuous coordinates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sensloc.boxes import Boxes, iou

Floats = npt.NDArray[np.float64]


def best_iou(predicted: Boxes, truth: Sequence[Boxes]) -> Floats:
    """Return the best IoU over each image's boxes.

    Args:
        predicted: [..., n, 4] One box per image, for any number of candidate methods.
        truth: n arrays [m_i, 4], m_i >= 1.

    Returns:
        [..., n] in [0, 1].
    """
    owner = np.repeat(np.arange(len(truth)), [len(boxes) for boxes in truth])
    flat = np.concatenate([np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in truth])
    with_every_box = iou(np.asarray(predicted, np.float64)[..., owner, :], flat)
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    return np.asarray(np.maximum.reduceat(with_every_box, starts, axis=-1))


def count_correct(predicted: Boxes, truth: Sequence[Boxes], threshold: float) -> Any:
    """Return how many images each candidate gets right.

    Args:
        predicted: [..., n, 4] See ``best_iou``.
        truth: n arrays [m_i, 4], m_i >= 1; n may be 0.
        threshold: The IoU from which a box is right.

    Returns:
        int64 [...].
    """
    if len(truth) == 0:
        return np.zeros(np.shape(predicted)[:-2], dtype=np.int64)
    return (best_iou(predicted, truth) >= threshold).sum(-1)


@dataclass(frozen=True)
class Interval:
    """A share in percent and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def share(correct: int, images: int, resamplings: int, seed: int) -> Interval:
    """Return CorLoc over all images, with a bootstrap over images.

    To resample n images, k of them right, and count the right ones is to draw from the binomial
    distribution (n, k / n): no image is touched.
    """
    return class_mean([correct], [images], resamplings, seed)


def class_mean(
    correct: Sequence[int], images: Sequence[int], resamplings: int, seed: int
) -> Interval:
    """Return the mean over classes of their CorLoc; images are resampled within their classes.

    Args:
        correct: [c] The images right, per class.
        images: [c] The images, each >= 1.
        resamplings: The number of resamplings of the bootstrap.
        seed: The seed of the bootstrap.

    Raises:
        ValueError: There is no class, or a class without images.
    """
    right, total = np.asarray(correct, np.int64), np.asarray(images, np.int64)
    if len(total) == 0 or (total < 1).any():
        raise ValueError("CorLoc of no images")
    draws = np.random.default_rng(seed).binomial(total, right / total, (resamplings, len(total)))
    low, high = np.percentile((draws / total).mean(1), [2.5, 97.5])
    return Interval(mean(right, total), 100 * float(low), 100 * float(high))


def mean(correct: npt.ArrayLike, images: npt.ArrayLike) -> float:
    """Return the mean of shares in percent, each of ``correct`` [c] among ``images`` [c]."""
    return 100 * float((np.asarray(correct) / np.asarray(images)).mean())


def headroom(percent: float, constant: float | None) -> float | None:
    """Return the share of the headroom above a constant box that a method takes, in percent.

    It is (x - c) / (100 - c), the one figure that compares across data sets.

    Args:
        percent: x, the method's CorLoc.
        constant: c, that of the tuned constant box on the same images; None where it is not known.
    """
    if constant is None or constant >= 100:
        return None
    return 100 * (percent - constant) / (100 - constant)
