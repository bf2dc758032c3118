"""How likely a predicted box is right: logistic regression on what prediction sees. numpy only."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sensloc.boxes import Boxes

Values = npt.NDArray[np.float64]

NAMES = ("log-odds of the class", "log of the box's area", "log of the map's spread")
"""Of the evidence, in its order."""

EDGE = 1e-6
"""Probabilities and areas are kept this far from 0 (and 1)."""

PENALTY = 1e-3
"""On each squared weight, per image: it keeps the weights finite where all boxes are right."""

STEPS = 100
TOLERANCE = 1e-10


def evidence(
    probability: npt.NDArray[np.floating], boxes: Boxes, maps: npt.NDArray[np.floating]
) -> Values:
    """What the confidence is made of: nothing that an unlabelled image lacks.

    Args:
        probability: [n] of the predicted class, in [0, 1].
        boxes: [n, 4] unit xyxy, as predicted.
        maps: [n, d], not negative.

    Returns:
        float64 [n, 3], see ``NAMES``. The spread is the share of cells that would hold the map if
        it were even: (sum m)^2 / (d sum m^2), in (0, 1]; 1 for a map of zeros.
    """
    p = np.clip(np.asarray(probability, np.float64), EDGE, 1 - EDGE)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    cells = np.asarray(maps, np.float64)
    square, whole = (cells**2).sum(1) * cells.shape[1], cells.sum(1) ** 2
    spread = np.divide(whole, square, out=np.ones_like(whole), where=square > 0)
    return np.stack([np.log(p / (1 - p)), np.log(np.maximum(area, EDGE)), np.log(spread)], axis=1)


@dataclass(frozen=True)
class Confidence:
    """The chance that a box is right, from its evidence.

    Attributes:
        mean: [k] of the evidence that it was fitted on.
        scale: [k] standard deviation of that evidence; 1 where it does not vary.
        weights: [k] of the standardised evidence.
        intercept: log-odds at the mean.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float

    @classmethod
    def fit(cls, seen: Values, right: npt.NDArray[np.bool_]) -> "Confidence":
        """Penalised maximum likelihood, by Newton's method.

        Args:
            seen: [n, k] evidence.
            right: [n].

        Raises:
            ValueError: no images.
        """
        if len(seen) == 0:
            raise ValueError("a confidence cannot be learned from no images")
        mean, scale = seen.mean(0), seen.std(0)
        scale = np.where(scale > 0, scale, 1.0)
        x = np.concatenate([np.ones((len(seen), 1)), (seen - mean) / scale], axis=1)
        # the intercept's own penalty is a hundredth: it is there for sets of one kind alone
        penalty = len(seen) * PENALTY * np.r_[0.01, np.ones(seen.shape[1])]
        w = np.zeros(x.shape[1])
        for _ in range(STEPS):
            p = _logistic(x @ w)
            gradient = x.T @ (p - right) + penalty * w
            curvature = (x * (p * (1 - p))[:, None]).T @ x + np.diag(penalty)
            step = np.linalg.solve(curvature, gradient)
            step *= min(1.0, 5.0 / max(np.abs(step).max(), EDGE))
            w -= step
            if np.abs(step).max() < TOLERANCE:
                break
        return cls(tuple(mean.tolist()), tuple(scale.tolist()), tuple(w[1:].tolist()), float(w[0]))

    def __call__(self, seen: Values) -> Values:
        """Evidence [n, k] -> [n] in (0, 1)."""
        standard = (seen - np.array(self.mean)) / np.array(self.scale)
        return _logistic(standard @ np.array(self.weights) + self.intercept)


def _logistic(x: Values) -> Values:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))


@dataclass(frozen=True)
class ConfidenceBin:
    """Images of like confidence.

    Attributes:
        images: how many.
        confidence: their mean, in [0, 1].
        right: the share of them that is right.
    """

    images: int
    confidence: float
    right: float


def reliability(
    confidence: Values, right: npt.NDArray[np.bool_], bins: int = 10
) -> tuple[ConfidenceBin, ...]:
    """What was promised beside what was kept: bins of as equal numbers of images as can be.

    Args:
        confidence: [n].
        right: [n].
        bins: how many; fewer where there are fewer images.
    """
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return tuple(
        ConfidenceBin(len(part), float(confidence[part].mean()), float(right[part].mean()))
        for part in parts
    )


def calibration_error(bins: Sequence[ConfidenceBin]) -> float:
    """The expected calibration error: the mean over images of |promised - kept| of their bin."""
    total = sum(one.images for one in bins)
    return sum(one.images * abs(one.confidence - one.right) for one in bins) / max(total, 1)
