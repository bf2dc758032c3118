"""Co-localization: of each image's candidate boxes, the one that the class has in common.

The box model of Tang, Joulin, Li and Fei-Fei (CVPR 2014). No box annotation is read, only that
all images show one class. With n images, their N boxes in all, and z the indicator of the chosen
boxes, relaxed to the product of the images' simplices::

    minimise  f(z) = 1/2 z^T (L + mu A) z + lam c^T z      z >= 0, sums to 1 over each image

- L, the normalised Laplacian of the boxes' similarities: alike boxes are chosen together.
- A, discriminative clustering: z^T A z is what the best ridge regression from the features
  cannot explain of z, so the chosen boxes can be told from the others.
- c, minus the log of each box's prior (objectness or saliency).

L and A are positive semidefinite, scaled to trace 1; c is scaled to sum 1. So f is convex, and
Frank-Wolfe (Joulin, Tang, Fei-Fei, ECCV 2014) finds its minimum with a certificate, the duality
gap. The paper's second model, which may leave noisy images out, is not here: every image of an
annotated class shows it.

Memory, in bytes, for N <= n m boxes of d features: the kernel and L take 16 N^2 while they are
made and 8 N^2 after (N = 6,300: 635 MB and 318 MB), or some 100 N k with k ``neighbours``. A is
never formed: its factor takes 8 N min(N, d'), where d' features feed it, and three times that while
it is made. Features are copied once as they come and once as float32; chi2 works in another 12 N d
at most (in proportion to the share of bins that are not empty).
"""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.linalg import solve_triangular

from sensloc.boxes import Boxes, area
from sensloc.scoring.corloc import best_iou

Array = npt.NDArray[np.float64]
Matrix = Any
"""Symmetric [N, N]: a float64 array, or a ``scipy.sparse.csr_array``."""
Kernel = Literal["chi2", "cosine"]

SAMPLE = 500
"""Boxes whose distances give the median."""
ROWS = 256
"""Rows of the kernel that are computed at once."""


# --------------------------------------------------------------------------- similarity


def chi2(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Chi-square distance of histograms, ``sum (a - b)^2 / (a + b)``, where 0 / 0 is 0.

    Since ``(a - b)^2 / (a + b) = a + b - 4 a b / (a + b)``, only a's non-zero bins cost anything.

    Args:
        a: [p, d], not negative.
        b: [q, d], not negative; fastest as float32 in Fortran order.

    Returns:
        float32 [p, q].
    """
    a, bins = np.asarray(a, np.float32), np.asarray(b, np.float32).T
    distance = a.sum(1)[:, None] + bins.sum(0)
    for row, histogram in zip(distance, a, strict=True):
        support = np.flatnonzero(histogram)
        value = histogram[support]
        other = bins[support]
        row -= 4 * (value @ (other / (other + value[:, None])))
    return np.asarray(np.maximum(distance, 0))


def cosine(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Squared distance of unit vectors, ``2 - 2 cos``: [p, d] and [q, d], of norm 1 -> [p, q]."""
    return np.asarray(np.maximum(2 - 2 * (a @ b.T), 0))


DISTANCES: dict[Kernel, Callable[..., npt.NDArray[Any]]] = {"chi2": chi2, "cosine": cosine}


def median_gamma(x: npt.NDArray[Any], owner: npt.NDArray[np.intp], kernel: Kernel) -> float:
    """One over the median distance between boxes of different images (of an even sample).

    Args:
        x: [N, d] features.
        owner: [N] the image of each box.
        kernel: which distance.

    Returns:
        1 where no two boxes differ.
    """
    sample = np.unique(np.linspace(0, len(x) - 1, SAMPLE).astype(np.intp))
    distance = DISTANCES[kernel](x[sample], x[sample])
    apart = distance[owner[sample][:, None] != owner[sample]]
    median = float(np.median(apart)) if apart.size else 0.0
    return 1 / median if median > 0 else 1.0


def similarity(
    x: npt.NDArray[Any],
    owner: npt.NDArray[np.intp],
    kernel: Kernel,
    gamma: float,
    same_image: bool = False,
    neighbours: int | None = None,
) -> Matrix:
    """``exp(-gamma * distance)`` between all boxes.

    Args:
        x: [N, d] histograms (chi2) or unit vectors (cosine).
        owner: [N] the image of each box, ascending.
        kernel: which distance.
        gamma: of the kernel.
        same_image: keep the similarities within an image; the paper sets them to 0.
        neighbours: keep each box's k most similar, and their equals (a pair stays if either box
            keeps it); None: all.

    Returns:
        Symmetric [N, N], from distances in float32; a CSR array if ``neighbours`` is given.
    """
    x, n = np.asfortranarray(x, np.float32), len(x)

    def block(rows: slice, columns: slice) -> Array:
        s = np.exp(-gamma * DISTANCES[kernel](x[rows], x[columns]).astype(np.float64))
        if not same_image:
            s[owner[rows, None] == owner[columns]] = 0
        return s

    bands = [slice(start, min(start + ROWS, n)) for start in range(0, n, ROWS)]
    if neighbours is None:
        dense = np.empty((n, n))
        for band in bands:
            right = slice(band.start, n)
            dense[band, right] = block(band, right)
            dense[band, band] = np.maximum(dense[band, band], dense[band, band].T)
            dense[right, band] = dense[band, right].T
        return dense
    kept = []
    for band in bands:
        s = block(band, slice(0, n))
        s[s < np.partition(s, -min(neighbours, n), axis=1)[:, -min(neighbours, n), None]] = 0
        kept.append(sparse.csr_array(s))
    half = sparse.vstack(kept, format="csr")
    return half.maximum(half.T).tocsr()


def laplacian(s: Matrix) -> Matrix:
    """``I - D^-1/2 S D^-1/2`` over its trace, D the row sums; a box like no other has row e_i.

    Args:
        s: symmetric [N, N], not negative.

    Returns:
        [N, N], of the same kind: positive semidefinite, trace 1.
    """
    degree = np.asarray(s.sum(axis=1)).ravel()
    scale = np.divide(1, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)
    trace = len(degree) - float((scale**2 * s.diagonal()).sum())
    if sparse.issparse(s):
        root = sparse.diags_array(scale)
        return ((sparse.eye_array(len(degree)) - root @ s @ root) / trace).tocsr()
    result = s * (scale / -trace)
    result *= scale[:, None]
    result[np.diag_indices_from(result)] += 1 / trace
    return result


# --------------------------------------------------------------------------- clustering


@dataclass(frozen=True)
class Clustering:
    """The matrix A, applied and never formed: ``A z = P (z - U U^T z) / trace``, P z = z - mean z.

    Attributes:
        factor: U, [N, r] with r = min(N, d) and columns of mean 0.
        trace: of A before it is scaled.
    """

    factor: Array
    trace: float

    def __matmul__(self, z: Array) -> Array:
        """A z: [N] -> [N]."""
        return np.asarray((z - z.mean() - self.factor @ (self.factor.T @ z)) / self.trace)

    def block(self, boxes: slice) -> Array:
        """A's rows and columns of one image: [m, m]."""
        u = self.factor[boxes]
        return (np.eye(len(u)) - 1 / len(self.factor) - u @ u.T) / self.trace


def clustering(x: npt.NDArray[Any], kappa: float) -> Clustering:
    """What a ridge regression with intercept cannot explain of a labelling of the boxes.

    Up to its trace, ``z^T A z / N = min over w, b of mean (z - x w - b)^2 + kappa |w|^2``.

    Args:
        x: [N, d] features.
        kappa: of the ridge, > 0.
    """
    centred = np.asarray(x, np.float64) - np.mean(x, axis=0, dtype=np.float64)
    n, d = centred.shape
    if d > n:  # only X X^T matters, and the triangle of X^T = Q R has the same in [N, N]
        centred = np.asarray(np.linalg.qr(centred.T, mode="r")).T
    gram = centred.T @ centred
    gram[np.diag_indices_from(gram)] += n * kappa
    factor = solve_triangular(np.linalg.cholesky(gram), centred.T, lower=True).T
    return Clustering(factor, float(n - 1 - (factor**2).sum()))


# --------------------------------------------------------------------------- quadratic program


@dataclass(frozen=True)
class Program:
    """``1/2 z^T (L + mu A) z + b^T z`` over a product of simplices.

    Attributes:
        laplacian: L, [N, N].
        clustering: A.
        mu: weight of A.
        linear: b, [N].
        owner: [N] the simplex of each entry of z, ascending.
    """

    laplacian: Matrix
    clustering: Clustering
    mu: float
    linear: Array
    owner: npt.NDArray[np.intp]

    def gradient(self, z: Array) -> Array:
        """[N] -> [N]."""
        return np.asarray(self.laplacian @ z + self.mu * (self.clustering @ z) + self.linear)

    def objective(self, z: Array) -> float:
        """The value at z, [N]."""
        return float(z @ (self.gradient(z) + self.linear)) / 2


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
    """Frank-Wolfe with pairwise steps, image by image.

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
    images = _images(program.owner)
    starts = [boxes.start for boxes in images]
    factor, trace = program.clustering.factor, program.clustering.trace
    weight = program.mu / trace
    rows = [program.laplacian[boxes] for boxes in images]
    hessians = [
        _dense(row[:, boxes]) + program.mu * program.clustering.block(boxes)
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
    """As many pairwise Frank-Wolfe steps as boxes, over one simplex: [m, m], [m], [m] -> [m]."""
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


def _images(owner: npt.NDArray[np.intp]) -> list[slice]:
    """The boxes of each image: owners are ascending."""
    edges = np.flatnonzero(np.diff(owner, prepend=-1, append=-1)).tolist()
    return [slice(start, end) for start, end in pairwise(edges)]


def _dense(matrix: Matrix) -> Array:
    return np.asarray(matrix.toarray() if sparse.issparse(matrix) else matrix)


# --------------------------------------------------------------------------- the method


def linear_term(prior: npt.NDArray[Any]) -> Array:
    """``-log(prior)`` over its sum: [N] in [0, 1] -> [N]; zeros where every prior is 1.

    Raises:
        ValueError: a prior is not in [0, 1].
    """
    prior = np.asarray(prior, np.float64)
    if not ((prior >= 0) & (prior <= 1)).all():
        raise ValueError("a prior is a probability: it lies in [0, 1]")
    cost = -np.log(np.maximum(prior, np.finfo(np.float64).eps))
    total = cost.sum()
    return np.asarray(cost / total if total > 0 else cost)


@dataclass(frozen=True)
class Colocalization:
    """The box model, with the paper's defaults.

    Attributes:
        kernel: "cosine" for CNN features (normalised here), "chi2" for histograms (not negative).
        mu: weight of the discriminative clustering.
        lam: weight of the prior.
        gamma: of the kernel; "median": see ``median_gamma``. None: "median" for cosine, the
            paper's 1 / sqrt(d) for chi2. That kernel is nearly flat (histograms are at most 2
            apart): do not thin it with ``neighbours``, which then only favours common boxes.
        kappa: of the ridge regression; None: 0.01 / d.
        whole_box_features: the clustering sees only the last so many columns, as the paper's sees
            only the whole box's histogram (k words); None: all.
        same_image: keep similarities between boxes of one image.
        neighbours: see ``similarity``; for an N whose square does not fit in memory.
        tolerance: of the duality gap, as a share of the objective.
        max_iterations: passes over the images at most.
    """

    kernel: Kernel = "cosine"
    mu: float = 0.4
    lam: float = 0.1
    gamma: float | Literal["median"] | None = None
    kappa: float | None = None
    whole_box_features: int | None = None
    same_image: bool = False
    neighbours: int | None = None
    tolerance: float = 1e-5
    max_iterations: int = 2000

    def localize(
        self, features: npt.NDArray[Any], prior: npt.NDArray[Any] | None, boxes: Boxes
    ) -> npt.NDArray[np.intp]:
        """Choose one box per image of one class.

        Args:
            features: [n, m, d], see ``kernel``.
            prior: [n, m] in [0, 1], the objectness or saliency of each box; None: all alike.
            boxes: [n, m, 4] unit xyxy. A box without area (zeros, NaN) pads an image that has
                fewer; its features and prior are not read.

        Returns:
            [n] index of the chosen box: the relaxed choice's largest entry in each image. A
            RuntimeWarning says when ``max_iterations`` ended the search.

        Raises:
            ValueError: an image has no box, or a feature or prior is out of its range.
        """
        ((chosen, _),) = self.path(features, prior, boxes, [(self.mu, self.lam)])
        return chosen

    def path(
        self,
        features: npt.NDArray[Any],
        prior: npt.NDArray[Any] | None,
        boxes: Boxes,
        weights: Sequence[tuple[float, float]],
    ) -> list[tuple[npt.NDArray[np.intp], float]]:
        """``localize`` under other weights than ``mu`` and ``lam``; the matrices are made once.

        Args:
            features: see ``localize``.
            prior: see ``localize``.
            boxes: see ``localize``.
            weights: pairs of mu and lam.

        Returns:
            For each pair the choices [n], and the CPU seconds that they took, the matrices' too.
        """
        began = time.process_time()
        valid = area(np.asarray(boxes)) > 0
        unit = replace(self, lam=1.0).program(features, prior, valid)
        shared, made = time.process_time() - began, []
        for mu, lam in weights:
            began = time.process_time()
            program = replace(unit, mu=mu, linear=lam * unit.linear)
            chosen = self._choose(program, valid)
            made.append((chosen, shared + time.process_time() - began))
        return made

    def _choose(self, program: Program, valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
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
        """The quadratic program over the valid boxes of all images, N in all.

        Args:
            features: [n, m, d].
            prior: [n, m] or None.
            valid: [n, m], with one box or more per image.

        Raises:
            ValueError: see ``localize``.
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
        s = similarity(x, owner, self.kernel, gamma, self.same_image, self.neighbours)
        whole = x if self.whole_box_features is None else x[:, -self.whole_box_features :]
        kappa = 0.01 / whole.shape[1] if self.kappa is None else self.kappa
        cost = linear_term(np.ones(len(x)) if prior is None else np.asarray(prior)[valid])
        return Program(laplacian(s), clustering(whole, kappa), self.mu, self.lam * cost, owner)


# --------------------------------------------------------------------------- bounds


def ceiling(boxes: Boxes, truth: Sequence[Boxes], threshold: float = 0.5) -> float:
    """CorLoc in percent of the best choice: images with a right one among their boxes.

    Args:
        boxes: [n, m, 4], padded with boxes without area.
        truth: n arrays [t_i, 4].
        threshold: of IoU.
    """
    return float(100 * _right(boxes, truth, threshold).any(axis=1).mean())


def floor(boxes: Boxes, truth: Sequence[Boxes], threshold: float = 0.5) -> float:
    """Expected CorLoc in percent of one box drawn at random per image; see ``ceiling``."""
    valid = area(np.asarray(boxes)) > 0
    return float(100 * (_right(boxes, truth, threshold).sum(1) / valid.sum(1)).mean())


def _right(boxes: Boxes, truth: Sequence[Boxes], threshold: float) -> npt.NDArray[np.bool_]:
    """Which boxes [n, m] find an object; a padding box never does."""
    best = best_iou(np.swapaxes(boxes, 0, 1), truth).T
    return np.asarray(best >= threshold)
