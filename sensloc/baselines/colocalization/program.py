"""The quadratic program of co-localization, and Frank-Wolfe with pairwise steps to solve it."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import numpy as np
import numpy.typing as npt

from sensloc.baselines.colocalization.clustering import Clustering
from sensloc.baselines.colocalization.similarity import Array


@dataclass(frozen=True)
class Program:
    """``1/2 z^T (L + mu A) z + b^T z`` over a product of simplices.

    Attributes:
        laplacian: L, [N, N].
        clustering: A.
        linear: b, [N].
        owner: [N] the simplex of each entry of z, ascending.
        mu: weight of A.
    """

    laplacian: Array
    clustering: Clustering
    linear: Array
    owner: npt.NDArray[np.intp]
    mu: float = 1.0

    def weighted(self, mu: float, lam: float) -> Self:
        """Return the program with A weighed by ``mu``, and its linear term by ``lam``."""
        return replace(self, mu=mu, linear=lam * self.linear)

    def gradient(self, z: Array) -> Array:
        """Return the gradient at z: [N] -> [N]."""
        return np.asarray(self.laplacian @ z + self.mu * (self.clustering @ z) + self.linear)

    def objective(self, z: Array) -> float:
        """Return the value at z, [N]."""
        return float(z @ (self.gradient(z) + self.linear)) / 2

    def images(self) -> list[slice]:
        """Return the boxes of each image, which lie side by side: owners are ascending."""
        edges = np.flatnonzero(np.diff(self.owner, prepend=-1, append=-1)).tolist()
        return [slice(start, end) for start, end in pairwise(edges)]


@dataclass(frozen=True)
class Solution:
    """Where Frank-Wolfe stopped.

    Attributes:
        z: [N] the relaxed choice.
        objective: f(z).
        gap: the duality gap: f(z) is at most this far above the minimum.
        iterations: passes over the images.
    """

    z: Array
    objective: float
    gap: float
    iterations: int


def solve(program: Program, tolerance: float = 1e-5, max_iterations: int = 2000) -> Solution:
    """Minimise by Frank-Wolfe with pairwise steps, image by image.

    The vertices of a simplex are its unit vectors, so the linear oracle of an image is the argmin
    of its part of the gradient, and the support of z is the active set: no list of vertices is
    kept. A step moves weight from the worst supported box of an image to its best, with exact
    line search. Block-coordinate Frank-Wolfe: Lacoste-Julien et al. 2013; pairwise steps, for
    linear convergence: Lacoste-Julien and Jaggi 2015. A pass over all images costs as much as one
    gradient. The order is fixed, and so is the result.

    Args:
        program: the quadratic program.
        tolerance: stop when the duality gap is at most this share of the objective (or lost in
            rounding, where the objective is next to 0).
        max_iterations: passes over the images at most.

    Returns:
        A solution whose ``gap`` says whether the tolerance was reached.
    """
    images = program.images()
    starts = [boxes.start for boxes in images]
    factor, trace = program.clustering.factor, program.clustering.trace
    weight = program.mu / trace
    rows = [program.laplacian[boxes] for boxes in images]
    hessians = [
        row[:, boxes] + program.mu * program.clustering.block(boxes)
        for row, boxes in zip(rows, images, strict=True)
    ]
    z = 1 / np.bincount(program.owner)[program.owner]
    mean = len(images) / len(z)
    rounding = np.finfo(np.float64).eps * len(images) * (1 / len(z) + weight)
    for iteration in range(max_iterations + 1):
        gradient = program.gradient(z)
        gap = float(gradient @ z - np.minimum.reduceat(gradient, starts).sum())
        objective = float(z @ (gradient + program.linear)) / 2
        if gap <= tolerance * abs(objective) + rounding or iteration == max_iterations:
            break
        explained = factor.T @ z
        for boxes, row, hessian in zip(images, rows, hessians, strict=True):
            old, u = z[boxes].copy(), factor[boxes]
            local = row @ z + weight * (old - mean - u @ explained) + program.linear[boxes]
            z[boxes] = _pairwise_steps(hessian, local, old)
            explained += (z[boxes] - old) @ u
    return Solution(z, objective, gap, iteration)


def _pairwise_steps(hessian: Array, gradient: Array, z: Array) -> Array:
    """Take as many pairwise Frank-Wolfe steps as boxes, over one simplex.

    Args:
        hessian: [m, m].
        gradient: [m], at ``z``.
        z: [m].

    Returns:
        [m], the z after them.
    """
    gradient, z = gradient.copy(), z.copy()
    for _ in range(len(z)):
        best, worst = int(gradient.argmin()), int(np.where(z > 0, gradient, -np.inf).argmax())
        slope = gradient[worst] - gradient[best]
        if slope <= 0:
            break
        curvature = hessian[best, best] + hessian[worst, worst] - 2 * hessian[best, worst]
        full = slope >= z[worst] * curvature
        step = z[worst] if full else min(z[worst], slope / curvature)
        z[best] += step
        z[worst] -= step
        gradient += step * (hessian[:, best] - hessian[:, worst])
    return z
