"""How likely a predicted box is right: logistic regression on what prediction sees.

Numpy only. scikit-learn's LogisticRegression refuses outcomes of one kind, which a small or an
easy validation set has; the weak penalty on the intercept here answers for those.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np
import numpy.typing as npt

from sensloc.boxes import Boxes, area
from sensloc.heatmaps.readout import covered

Values = npt.NDArray[np.float64]

NAMES = (
    *("log-odds of the class", "log of the box's area", "log of the map's spread"),
    *("log-odds of the map's mass in the box", "log of the map's mean in the box"),
)
"""What each column of the evidence is."""

EDGE = 1e-6
"""Probabilities are kept this far from 0 and 1, areas this far from 0."""

PENALTY = 1e-3
"""On each squared weight, per image: it keeps the weights finite where all boxes are right."""

INTERCEPT_SHARE = 0.01
"""Of the penalty, on the squared intercept: it matters only where all outcomes are alike."""

STEPS = 100
"""Newton's steps, at most: some six are taken."""

TOLERANCE = 1e-10
"""The fit ends where no weight moves by as much."""

LONGEST_STEP = 5.0
"""Of one weight, in log-odds: a longer step is shortened, so that no logistic saturates."""


def evidence(
    probability: npt.NDArray[np.floating], boxes: Boxes, maps: npt.NDArray[np.floating]
) -> Values:
    """Return what the confidence is made of: nothing that an unlabelled image lacks.

    Args:
        probability: [n] of the predicted class, in [0, 1].
        boxes: [n, 4] predicted, unit xyxy.
        maps: [n, h * h] not negative.

    Returns:
        float64 [n, 5], see ``NAMES``. The spread is the share of cells that would hold the map if
        it were even: (sum m)^2 / (d sum m^2), in (0, 1]; 1 for a map of zeros.
    """
    p = np.clip(np.asarray(probability, np.float64), EDGE, 1 - EDGE)
    cells = np.asarray(maps, np.float64)
    square, whole = (cells**2).sum(1) * cells.shape[1], cells.sum(1) ** 2
    spread = np.divide(whole, square, out=np.ones_like(whole), where=square > 0)
    log_area = np.log(np.maximum(area(boxes), EDGE))
    inside = covered(boxes, isqrt(cells.shape[1]))
    held = (cells * inside).sum(1)
    share = np.clip(held / np.maximum(cells.sum(1), EDGE), EDGE, 1 - EDGE)
    mean = np.maximum(held / np.maximum(inside.sum(1), EDGE), EDGE)
    columns = (_log_odds(p), log_area, np.log(spread), _log_odds(share), np.log(mean))
    return np.stack(columns, axis=1)


def _log_odds(p: Values) -> Values:
    return np.log(p / (1 - p))


@dataclass(frozen=True)
class Confidence:
    """The chance that a box is right, from its evidence.

    Attributes:
        mean: [k] mean of the evidence that it was fitted on.
        scale: [k] standard deviation of that evidence; 1 where it does not vary.
        weights: [k] of the standardised evidence, in log-odds.
        intercept: log-odds at the mean evidence.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float

    @classmethod
    def fit(cls, measured: Values, right: npt.NDArray[np.bool_]) -> "Confidence":
        """Fit by penalised maximum likelihood, with Newton's method.

        Args:
            measured: [n, k] the evidence of each image.
            right: [n] whether its box is right.

        Raises:
            ValueError: There are no images.
        """
        if len(measured) == 0:
            raise ValueError("a confidence cannot be learned from no images")
        mean, scale = measured.mean(0), measured.std(0)
        scale = np.where(scale > 0, scale, 1.0)
        x = np.concatenate([np.ones((len(measured), 1)), (measured - mean) / scale], axis=1)
        penalty = len(measured) * PENALTY * np.r_[INTERCEPT_SHARE, np.ones(measured.shape[1])]
        w = np.zeros(x.shape[1])
        for _ in range(STEPS):
            p = _logistic(x @ w)
            gradient = x.T @ (p - right) + penalty * w
            curvature = (x * (p * (1 - p))[:, None]).T @ x + np.diag(penalty)
            step = np.linalg.solve(curvature, gradient)
            step *= min(1.0, LONGEST_STEP / max(np.abs(step).max(), EDGE))
            w -= step
            if np.abs(step).max() < TOLERANCE:
                break
        return cls(tuple(mean.tolist()), tuple(scale.tolist()), tuple(w[1:].tolist()), float(w[0]))

    def __call__(self, measured: Values) -> Values:
        """Return the chance that each box is right, from its evidence: [n, k] -> [n] in (0, 1)."""
        standard = (measured - np.array(self.mean)) / np.array(self.scale)
        return _logistic(standard @ np.array(self.weights) + self.intercept)


def _logistic(x: Values) -> Values:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))


@dataclass(frozen=True)
class ConfidenceBin:
    """Some images of about the same confidence.

    Attributes:
        images: how many there are.
        confidence: the mean of theirs, in [0, 1].
        right: the share of their boxes that is right, in [0, 1].
    """

    images: int
    confidence: float
    right: float


def reliability(
    confidence: Values, right: npt.NDArray[np.bool_], bins: int = 10
) -> tuple[ConfidenceBin, ...]:
    """Compare the promised with the kept, in bins of as equal numbers of images as can be.

    Args:
        confidence: [n] as promised, in [0, 1].
        right: [n] whether the box is right.
        bins: how many to make; there are fewer where there are fewer images.

    Returns:
        The bins, from the lowest confidence to the highest; none of no images.
    """
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return tuple(
        ConfidenceBin(len(part), float(confidence[part].mean()), float(right[part].mean()))
        for part in parts
    )


def calibration_error(bins: Sequence[ConfidenceBin]) -> float:
    """Return the expected calibration error, in [0, 1] (Naeini et al. 2015).

    It is the mean over images of the difference of promised and kept in their bin.
    """
    total = sum(b.images for b in bins)
    return sum(b.images * abs(b.confidence - b.right) for b in bins) / max(total, 1)
