"""The box model: from features, priors and boxes of a class's images to one box for each."""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sensloc.baselines.colocalization.clustering import clustering
from sensloc.baselines.colocalization.program import Program, solve
from sensloc.baselines.colocalization.similarity import (
    Array,
    Kernel,
    laplacian,
    median_gamma,
    similarity,
)
from sensloc.boxes import Boxes, area

KAPPA = 0.01
"""The ridge of the discriminative clustering, over its number of features."""


@dataclass(frozen=True)
class Colocalization:
    """The box model, with the paper's defaults.

    Attributes:
        kernel: "cosine" for CNN features (normalised here), "chi2" for histograms (not negative).
        gamma: of the kernel; "median": see ``median_gamma``. None: "median" for cosine, the
            paper's 1 / sqrt(d) for chi2.
        whole_box_features: the clustering sees only the last so many columns, as the paper's sees
            only the whole box's histogram (k words); None: all.
        tolerance: of the duality gap, as a share of the objective.
        max_iterations: passes over the images at most.
    """

    kernel: Kernel = "cosine"
    gamma: float | Literal["median"] | None = None
    whole_box_features: int | None = None
    tolerance: float = 1e-5
    max_iterations: int = 2000

    def path(
        self,
        features: npt.NDArray[Any],
        prior: npt.NDArray[Any] | None,
        boxes: Boxes,
        weights: Sequence[tuple[float, float]],
    ) -> list[tuple[npt.NDArray[np.intp], float]]:
        """Choose one box per image of one class, under each of some weights.

        Args:
            features: [n, m, d], see ``kernel``.
            prior: [n, m] in [0, 1], the objectness or saliency of each box; None: all alike.
            boxes: [n, m, 4] unit xyxy. A box without area (zeros, NaN) pads an image that has
                fewer; its features and prior are not read.
            weights: pairs of mu, of the clustering, and lam, of the prior; the matrices are made
                once for all.

        Returns:
            For each pair, [n] the index of the chosen box, which has the largest entry of the
            relaxed choice in its image, and the CPU seconds that it took, the matrices' too. A
            RuntimeWarning says when ``max_iterations`` ended the search.

        Raises:
            ValueError: an image has no box, or a feature or prior is out of its range.
        """
        began = time.process_time()
        valid = area(np.asarray(boxes)) > 0
        program = self.program(features, prior, valid)
        shared, choices = time.process_time() - began, []
        for mu, lam in weights:
            began = time.process_time()
            chosen = self._choose(program.weighted(mu, lam), valid)
            choices.append((chosen, shared + time.process_time() - began))
        return choices

    def _choose(self, program: Program, valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
        """Return the box of each image, [n], of a program over the valid [n, m]."""
        solution = solve(program, self.tolerance, self.max_iterations)
        if solution.iterations == self.max_iterations:
            warnings.warn(
                f"co-localization stopped after {solution.iterations} passes: duality gap "
                f"{solution.gap:.3g} at objective {solution.objective:.3g}",
                RuntimeWarning,
                stacklevel=3,
            )
        z = np.full(valid.shape, -np.inf)
        z[valid] = solution.z
        return np.asarray(z.argmax(axis=1))

    def program(
        self,
        features: npt.NDArray[Any],
        prior: npt.NDArray[Any] | None,
        valid: npt.NDArray[np.bool_],
    ) -> Program:
        """Return the quadratic program over the valid boxes of all images, with both weights 1.

        Args:
            features: [n, m, d].
            prior: [n, m] or None.
            valid: [n, m], with one box or more per image.

        Raises:
            ValueError: see ``path``.
        """
        if not valid.any(axis=1).all():
            raise ValueError(f"image {int(valid.any(axis=1).argmin())} has no box")
        owner = np.nonzero(valid)[0]
        x = np.asarray(features)[valid]
        if not np.isfinite(x).all():
            raise ValueError("features are not finite")
        if self.kernel == "chi2" and (x < 0).any():
            raise ValueError("kernel chi2: histograms have no negative entry")
        if self.kernel == "cosine":
            x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(x.dtype).tiny)
        gamma = self.gamma
        if gamma is None:
            gamma = x.shape[1] ** -0.5 if self.kernel == "chi2" else "median"
        if gamma == "median":
            gamma = median_gamma(x, owner, self.kernel)
        whole = x if self.whole_box_features is None else x[:, -self.whole_box_features :]
        return Program(
            laplacian(similarity(x, owner, self.kernel, gamma)),
            clustering(whole, KAPPA / whole.shape[1]),
            linear_term(np.ones(len(x)) if prior is None else np.asarray(prior)[valid]),
            owner,
        )


def linear_term(prior: npt.NDArray[Any]) -> Array:
    """Return ``-log(prior)`` over its sum: [N] in [0, 1] -> [N]; zeros where every prior is 1.

    Raises:
        ValueError: a prior is not in [0, 1].
    """
    prior = np.asarray(prior, np.float64)
    if not ((prior >= 0) & (prior <= 1)).all():
        raise ValueError("a prior is a probability: it lies in [0, 1]")
    cost = -np.log(np.maximum(prior, np.finfo(np.float64).eps))
    total = cost.sum()
    return np.asarray(cost / total if total > 0 else cost)
