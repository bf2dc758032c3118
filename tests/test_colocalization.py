"""Laws of co-localization: the program is the formula's, its optimum certified, objects found."""

from itertools import pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import optimize

from sensloc.baselines import dense_sift as sift
from sensloc.baselines.colocalization import Colocalization
from sensloc.baselines.colocalization.clustering import clustering
from sensloc.baselines.colocalization.model import linear_term
from sensloc.baselines.colocalization.program import Program, solve
from sensloc.baselines.colocalization.similarity import (
    Kernel,
    chi2,
    cosine,
    laplacian,
    median_gamma,
    similarity,
)
from sensloc.boxes import Boxes

Array = npt.NDArray[np.float64]
KERNELS: tuple[Kernel, ...] = ("cosine", "chi2")
UNIT = (0.0, 0.0, 1.0, 1.0)


def planted(n: int, m: int, kernel: Kernel, seed: int) -> tuple[Array, npt.NDArray[np.intp]]:
    """Features [n, m, d] in which one box per image shows the common object, and which."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(m, size=n)
    if kernel == "cosine":
        x = rng.normal(size=(n, m, 64))
        common = 0.8 * rng.normal(size=64) + 0.6 * x[np.arange(n), truth]
    else:  # one profile, its bins in any order: no box is like the others by being flat
        profile = rng.gamma(0.5, size=200)
        profile /= profile.sum()
        x = rng.permuted(np.broadcast_to(profile, (n, m, 200)), axis=-1)
        common = np.tile(rng.permutation(profile), (n, 1))
        common[:, :60] = rng.permuted(common[:, :60], axis=1)
    x[np.arange(n), truth] = common
    return x, truth


def whole(n: int, m: int) -> Boxes:
    return np.broadcast_to(UNIT, (n, m, 4)).copy()


def chosen(
    model: Colocalization, x: Array, prior: Any, boxes: Boxes, mu: float = 0.4, lam: float = 0.1
) -> npt.NDArray[np.intp]:
    """The choices under one pair of weights."""
    ((choices, _),) = model.path(x, prior, boxes, [(mu, lam)])
    return choices


def program(
    n: int, m: int, kernel: Kernel = "cosine", mu: float = 0.4, lam: float = 0.1
) -> tuple[Program, Array]:
    """A planted program, with its dense matrix L + mu A."""
    x, _ = planted(n, m, kernel, 0)
    prior = np.random.default_rng(0).uniform(0.3, 1, (n, m))
    unit = Colocalization(kernel).program(x, prior, np.ones((n, m), bool))
    return unit.weighted(mu, lam), unit.laplacian + mu * dense(unit)


def dense(made: Program) -> Array:
    """A, column by column."""
    return np.stack([made.clustering @ e for e in np.eye(len(made.owner))], axis=1)


def a_by_formula(x: Array, kappa: float) -> Array:
    n, d = x.shape
    p = np.eye(n) - 1 / n
    centred = p @ x
    inverse = np.linalg.inv(centred.T @ centred + n * kappa * np.eye(d))
    return np.asarray(p @ (np.eye(n) - centred @ inverse @ centred.T) @ p)


# ------------------------------------------------------------------------------- distances


def test_chi2_by_hand_and_by_definition() -> None:
    assert chi2([[0.5, 0.5, 0]], [[0, 0.5, 0.5]]) == pytest.approx(1.0)
    assert chi2([[1.0, 0.0]], [[0.0, 1.0]]) == 2
    assert chi2([[0.0, 0.0]], [[0.0, 0.0]]) == 0
    x = planted(6, 4, "chi2", 0)[0].reshape(24, -1)
    x[:, ::3] = 0
    a, b = x[:, None], x[None]
    total = np.where(a + b > 0, a + b, 1)
    np.testing.assert_allclose(chi2(x, x), ((a - b) ** 2 / total).sum(-1), atol=2e-6)
    fortran = np.asfortranarray(x, np.float32)
    np.testing.assert_allclose(chi2(x, fortran), chi2(x, x), atol=2e-6)


def test_cosine_is_the_squared_distance_of_unit_vectors() -> None:
    x = np.random.default_rng(0).normal(size=(9, 5))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(cosine(x, x), ((x[:, None] - x) ** 2).sum(-1), atol=1e-12)


def test_median_gamma_sees_only_pairs_of_different_images() -> None:
    x, owner = np.array([[1.0, 0], [0, 1], [0, 1]]), np.array([0, 0, 1])
    # apart: (0, 2) at distance 2 and (1, 2) at 0, each twice: median 1
    assert median_gamma(x, owner, "cosine") == 1.0
    assert median_gamma(np.ones((4, 1)), np.arange(4), "cosine") == 1.0


@pytest.mark.parametrize("kernel", KERNELS)
def test_boxes_are_similar_across_images_only(kernel: Kernel) -> None:
    x = planted(100, 3, kernel, 0)[0].reshape(300, -1)  # more than one band of rows
    if kernel == "cosine":
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    owner = np.repeat(np.arange(100), 3)
    same = owner[:, None] == owner
    similarities = similarity(x, owner, kernel, 0.7)
    np.testing.assert_array_equal(similarities, similarities.T)
    assert (similarities[same] == 0).all()
    expected = np.exp(-0.7 * (chi2 if kernel == "chi2" else cosine)(x, x))
    np.testing.assert_allclose(similarities[~same], expected[~same], atol=1e-6)


# ------------------------------------------------------------------------------- the two matrices


def test_laplacian_is_its_formula_psd_and_of_trace_one() -> None:
    x, owner = planted(8, 5, "chi2", 1)[0].reshape(40, -1), np.repeat(np.arange(8), 5)
    s = similarity(x, owner, "chi2", 1.0)
    lap = laplacian(s)
    root = np.diag(s.sum(1) ** -0.5)
    formula = np.eye(40) - root @ s @ root
    np.testing.assert_allclose(lap, formula / np.trace(formula), atol=1e-15)
    assert np.trace(lap) == pytest.approx(1, abs=1e-12)
    assert np.linalg.eigvalsh(lap).min() > -1e-12
    np.testing.assert_allclose(lap @ np.sqrt(s.sum(1)), 0, atol=1e-12)


def test_a_box_like_no_other_has_an_identity_row() -> None:
    s = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(laplacian(s), np.array([[1, -1, 0], [-1, 1, 0], [0, 0, 1]]) / 3)


@pytest.mark.parametrize("d", [3, 30, 90])
@pytest.mark.parametrize("kappa", [1e-4, 0.1])
def test_clustering_is_its_formula_psd_and_of_trace_one(d: int, kappa: float) -> None:
    x = np.random.default_rng(d).normal(size=(30, d)) + 3
    operator = clustering(x, kappa)
    a = np.stack([operator @ e for e in np.eye(30)], axis=1)
    formula = a_by_formula(x, kappa)
    assert operator.trace == pytest.approx(np.trace(formula), rel=1e-8)
    np.testing.assert_allclose(a, formula / np.trace(formula), atol=1e-8)
    assert operator.factor.shape == (30, min(30, d))
    assert np.linalg.eigvalsh((a + a.T) / 2).min() > -1e-12
    assert np.trace(a) == pytest.approx(1)
    np.testing.assert_allclose(operator.block(slice(4, 9)), a[4:9, 4:9], atol=1e-12)


def test_clustering_means_the_residual_of_ridge_regression() -> None:
    rng = np.random.default_rng(0)
    x, z, kappa = rng.normal(size=(25, 4)), rng.random(25), 0.05
    # mean (z - x w - b)^2 + kappa |w|^2 as one least-squares problem with a free intercept
    design = np.block([[x, np.ones((25, 1))], [np.sqrt(25 * kappa) * np.eye(4), np.zeros((4, 1))]])
    target = np.concatenate([z, np.zeros(4)])
    weights = np.linalg.lstsq(design, target)[0]
    residual = ((design @ weights - target) ** 2).sum()
    operator = clustering(x, kappa)
    assert z @ (operator @ z) * operator.trace == pytest.approx(residual, rel=1e-10)


def test_linear_term() -> None:
    np.testing.assert_allclose(linear_term([1.0, np.exp(-1), np.exp(-3)]), [0, 0.25, 0.75])
    np.testing.assert_array_equal(linear_term(np.ones(3)), 0)
    assert np.isfinite(linear_term([0.0, 0.5])).all()
    for bad in ([-0.1, 0.5], [1.5, 0.5], [np.nan, 0.5]):
        with pytest.raises(ValueError, match="prior"):
            linear_term(bad)


# ------------------------------------------------------------------------------- the solver


def test_gradient_and_objective_are_the_formula() -> None:
    made, matrix = program(6, 5)
    z = np.random.default_rng(1).random(30)
    assert made.objective(z) == pytest.approx(z @ matrix @ z / 2 + made.linear @ z)
    np.testing.assert_allclose(made.gradient(z), matrix @ z + made.linear, atol=1e-15)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("seed", range(3))
def test_relaxed_optimum_is_a_lower_bound_of_every_choice(kernel: Kernel, seed: int) -> None:
    x, truth = planted(5, 4, kernel, seed)
    model = Colocalization(kernel)
    relaxed = model.program(x, None, np.ones((5, 4), bool)).weighted(0.4, 0)
    choices = np.array(list(product(range(4), repeat=5)))
    vectors = np.eye(4)[choices].reshape(len(choices), 20)
    values = np.array([relaxed.objective(v) for v in vectors])
    assert solve(relaxed).objective <= values.min()
    np.testing.assert_array_equal(choices[values.argmin()], truth)
    np.testing.assert_array_equal(chosen(model, x, None, whole(5, 4), lam=0), truth)


@pytest.mark.parametrize(("mu", "lam"), [(0.4, 0.1), (0.4, 1.0), (5.0, 0.05), (0.0, 0.1)])
def test_agrees_with_a_general_solver(mu: float, lam: float) -> None:
    made, matrix = program(5, 4, mu=mu, lam=lam)
    solution = solve(made, tolerance=1e-10)
    matrix, linear = matrix * 100, made.linear * 100  # SLSQP's tolerance is absolute
    generic = optimize.minimize(
        lambda z: z @ matrix @ z / 2 + linear @ z,
        np.full(20, 0.25),
        jac=lambda z: (matrix + matrix.T) @ z / 2 + linear,
        bounds=[(0, 1)] * 20,
        constraints={
            "type": "eq",
            "fun": lambda z: z.reshape(5, 4).sum(1) - 1,
            "jac": lambda z: np.kron(np.eye(5), np.ones(4)),
        },
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    assert solution.objective == pytest.approx(generic.fun / 100, rel=1e-5)
    np.testing.assert_allclose(solution.z, generic.x, atol=2e-3)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("mu", [0.4, 20.0])
def test_the_gap_bounds_the_error_and_falls_below_the_tolerance(kernel: Kernel, mu: float) -> None:
    made, _ = program(12, 6, kernel=kernel, mu=mu)
    best = solve(made, tolerance=1e-12)
    steps = [solve(made, tolerance=0, max_iterations=k) for k in range(12)]
    for step in steps:
        assert step.z.min() >= 0
        np.testing.assert_allclose(step.z.reshape(12, 6).sum(1), 1, atol=1e-12)
        assert step.gap >= step.objective - best.objective - 1e-16
        assert step.objective == pytest.approx(made.objective(step.z))
    objectives = [step.objective for step in steps]
    assert all(a >= b - 1e-16 for a, b in pairwise(objectives))
    for tolerance in (1e-2, 1e-5, 1e-8):
        solution = solve(made, tolerance)
        assert solution.gap <= tolerance * solution.objective


def test_no_pass_is_the_uniform_choice() -> None:
    made, _ = program(4, 5)
    start = solve(made, max_iterations=0)
    np.testing.assert_array_equal(start.z, 0.2)
    assert start.iterations == 0


# ------------------------------------------------------------------------------- the method


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("gamma", [None, "median", 1.0])
def test_finds_the_common_object(kernel: Kernel, gamma: Any) -> None:
    model = Colocalization(kernel, gamma)
    for seed in range(5):
        x, truth = planted(20, 10, kernel, seed)
        assert (chosen(model, x, None, whole(20, 10)) == truth).mean() >= 0.95


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("mu", "gamma"), [(0.0, "median"), (5.0, None)])
def test_either_term_alone_finds_it(kernel: Kernel, mu: float, gamma: Any) -> None:
    x, truth = planted(20, 10, kernel, 0)
    choices = chosen(Colocalization(kernel, gamma), x, None, whole(20, 10), mu=mu)
    np.testing.assert_array_equal(choices, truth)


def test_each_pair_of_weights_has_its_own_choice_and_time() -> None:
    x, truth = planted(12, 6, "cosine", 0)
    prior = np.random.default_rng(0).random((12, 6))
    (common, shared), (likely, seconds) = Colocalization().path(
        x, prior, whole(12, 6), [(0.4, 0.0), (0.4, 1e6)]
    )
    np.testing.assert_array_equal(common, truth)
    np.testing.assert_array_equal(likely, prior.argmax(1))  # a heavy prior decides alone
    assert min(shared, seconds) > 0


def test_order_of_images_and_of_boxes_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    x, _ = planted(12, 6, "cosine", 0)
    prior = rng.uniform(0.3, 1, (12, 6))
    model = Colocalization(tolerance=1e-9)
    choices = chosen(model, x, prior, whole(12, 6))
    images, boxes = rng.permutation(12), rng.permutation(6)
    np.testing.assert_array_equal(
        chosen(model, x[images], prior[images], whole(12, 6)), choices[images]
    )
    np.testing.assert_array_equal(
        boxes[chosen(model, x[:, boxes], prior[:, boxes], whole(12, 6))], choices
    )


def test_a_level_prior_does_not_matter() -> None:
    x, truth = planted(12, 6, "cosine", 0)
    level = chosen(Colocalization(), x, np.full((12, 6), 0.3), whole(12, 6))
    np.testing.assert_array_equal(level, truth)


def test_boxes_all_alike_are_left_level() -> None:
    alike = Colocalization().program(np.ones((5, 4, 3)), None, np.ones((5, 4), bool))
    solution = solve(alike.weighted(0.4, 0))
    np.testing.assert_array_equal(solution.z, 0.25)
    assert solution.iterations == 0
    assert solution.objective == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("empty", [0.0, np.nan])
def test_padding_changes_nothing_and_is_never_chosen(empty: float) -> None:
    rng = np.random.default_rng(0)
    x, _ = planted(10, 5, "cosine", 3)
    prior, boxes = rng.uniform(0.3, 1, (10, 5)), whole(10, 5)
    boxes[::2, 4] = empty  # images of 5 and of 4 boxes, without padding and then with much
    x[::2, 4], prior[::2, 4] = np.nan, np.nan
    choices = chosen(Colocalization(), x, prior, boxes, lam=1.0)
    assert (choices[::2] < 4).all()
    pad = [(0, 0), (3, 2)]
    padded = chosen(
        Colocalization(),
        np.pad(x, [*pad, (0, 0)], constant_values=np.nan),
        np.pad(prior, pad, constant_values=1.0),
        np.pad(boxes, [*pad, (0, 0)], constant_values=empty),
        lam=1.0,
    )
    np.testing.assert_array_equal(padded, choices + 3)


def test_one_image_alone_follows_its_prior() -> None:
    x, _ = planted(1, 4, "cosine", 0)
    prior = np.array([[0.1, 0.2, 0.9, 0.3]])
    assert chosen(Colocalization(), x, prior, whole(1, 4), lam=10).tolist() == [2]


def test_the_clustering_can_see_the_whole_box_alone() -> None:
    x, _ = planted(6, 4, "chi2", 0)
    model = Colocalization(kernel="chi2", whole_box_features=20)
    made = model.program(x, None, np.ones((6, 4), bool))
    formula = a_by_formula(x[..., -20:].reshape(24, 20), 0.01 / 20)
    np.testing.assert_allclose(dense(made), formula / np.trace(formula), atol=1e-9)


def test_an_unfinished_search_says_so() -> None:
    x, _ = planted(6, 4, "cosine", 0)
    with pytest.warns(RuntimeWarning, match="1 passes: duality gap"):
        chosen(Colocalization(max_iterations=1, tolerance=0), x, None, whole(6, 4))


def test_bad_input_is_refused() -> None:
    x, boxes = np.ones((2, 3, 4)), whole(2, 3)
    model = Colocalization()
    empty = boxes.copy()
    empty[1] = 0
    with pytest.raises(ValueError, match="image 1 has no box"):
        chosen(model, x, None, empty)
    with pytest.raises(ValueError, match="finite"):
        chosen(model, x * np.nan, None, boxes)
    with pytest.raises(ValueError, match="negative"):
        chosen(Colocalization("chi2"), -x, None, boxes)


# ------------------------------------------------------------------------------- dense SIFT


def photograph(seed: int = 0, side: int = 61) -> npt.NDArray[Any]:
    return np.random.default_rng(seed).random((side, side))


def bins(descriptors: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Share of each orientation in the descriptor of the centre."""
    middle = descriptors.reshape(10, 10, 16, 8)[5, 5].sum(0)
    return middle / middle.sum()


def test_sift_grid() -> None:
    descriptors, positions = sift.dense_sift(np.random.default_rng(0).random((33, 50)))
    assert descriptors.shape == (3 * 7, 128)
    assert descriptors.dtype == positions.dtype == np.float32
    np.testing.assert_allclose(positions[0], [12.5 / 50, 12.5 / 33], rtol=1e-6)
    np.testing.assert_allclose(positions[1] - positions[0], [4 / 50, 0], atol=1e-7)
    np.testing.assert_allclose(positions[-1], [36.5 / 50, 20.5 / 33], rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, rtol=1e-5)
    assert (descriptors >= 0).all()
    assert len(sift.dense_sift(np.zeros((24, 100)))[0]) == 0
    assert len(sift.dense_sift(np.zeros((25, 25)))[0]) == 1


@pytest.mark.parametrize("level", [0, 0.1, 200])
def test_a_constant_image_gives_zeros(level: float) -> None:
    descriptors, _ = sift.dense_sift(np.full((40, 50), level))
    assert descriptors.shape == (4 * 7, 128)
    assert (descriptors == 0).all()


@pytest.mark.parametrize("turn", np.arange(0, 8, 0.5))
def test_a_gradient_votes_for_its_two_nearest_orientations(turn: float) -> None:
    y, x = np.mgrid[:61, :61]
    angle = turn * np.pi / 4
    share = bins(sift.dense_sift(x * np.cos(angle) + y * np.sin(angle))[0])
    expected = np.zeros(8)
    expected[int(turn)] += 1 - turn % 1
    expected[(int(turn) + 1) % 8] += turn % 1
    np.testing.assert_allclose(share, expected, atol=1e-4)


def test_a_step_edge_stays_in_its_spatial_bins() -> None:
    image = np.zeros((25, 25))
    image[:, 20:] = 1  # the bins of the one descriptor are centred on columns 0, 8, 16, 24
    columns = sift.dense_sift(image)[0].reshape(4, 4, 8)[..., 0].sum(0)
    assert columns[0] == pytest.approx(0, abs=1e-3)
    assert columns[1] < 0.2 * columns[2]


def test_a_turned_image_has_turned_descriptors() -> None:
    image = photograph()
    upright = sift.dense_sift(image)[0].reshape(10, 10, 4, 4, 8)
    turned = sift.dense_sift(np.rot90(image))[0].reshape(10, 10, 4, 4, 8)
    # rot90 turns against the clock: x becomes -y, two orientations back; row is the last column
    expected = np.rot90(np.rot90(upright, axes=(0, 1)), axes=(2, 3))
    np.testing.assert_allclose(turned, np.roll(expected, -2, axis=-1), atol=1e-5)


def test_contrast_and_brightness_do_not_matter() -> None:
    image = photograph()
    np.testing.assert_allclose(
        sift.dense_sift(image)[0], sift.dense_sift(3 * image + 40)[0], atol=1e-4
    )


def test_vocabulary_is_seeded_and_finds_clusters() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(128, dtype=np.float32)[:6]
    sample = np.repeat(centres, 60, axis=0) + rng.normal(size=(360, 128)).astype("f4") * 0.01
    words = sift.vocabulary(sample, k=6, seed=1)
    assert words.shape == (6, 128)
    np.testing.assert_array_equal(words, sift.vocabulary(sample, k=6, seed=1))
    assert sorted(sift.nearest_words(centres, words)) == list(range(6))
    np.testing.assert_allclose(words[sift.nearest_words(centres, words)], centres, atol=0.02)
    assert len(sift.nearest_words(sample[:0], words)) == 0


def test_box_histograms_by_hand() -> None:
    positions = np.array([[0.1, 0.1], [0.5, 0.1], [0.9, 0.9], [0.9, 0.95]])
    words = np.array([0, 1, 1, 0])
    boxes = np.array([UNIT, (0, 0, 0.6, 0.3), (0.2, 0.2, 0.3, 0.3), (0, 0, 0, 0), (0.9, 0.9, 1, 1)])
    made = sift.box_histograms(words, positions, boxes, k=2)
    assert made.shape == (5, 20)
    expected = np.zeros((5, 10, 2))
    expected[0, [0, 1, 8, 8], [0, 1, 1, 0]] = 1 / 8
    expected[0, 9] = 2 / 8
    expected[1, [3, 5], [0, 1]] = 1 / 4  # y = 0.1 is the second of three rows of 0.3's thirds
    expected[1, 9] = 1 / 4
    expected[4, [0, 3], [1, 0]] = 1 / 4  # a box holds its left and top edge
    expected[4, 9] = 1 / 4
    np.testing.assert_allclose(made, expected.reshape(5, 20), atol=1e-7)


def test_box_histograms_sum_to_one_and_hold_the_whole_box_last() -> None:
    descriptors, positions = sift.dense_sift(photograph(side=101))
    words = np.random.default_rng(0).integers(7, size=len(descriptors))
    made = sift.box_histograms(words, positions, np.array([UNIT, (0.2, 0.3, 0.9, 0.8)]), k=7)
    np.testing.assert_allclose(made.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(made.reshape(2, 10, 7)[:, :9].sum(1), made[:, -7:], rtol=1e-5)
    np.testing.assert_allclose(made[0, -7:], np.bincount(words) / len(words) / 2, rtol=1e-5)


def test_from_photographs_to_the_common_object() -> None:
    """Dense SIFT, vocabulary, histograms and co-localization, end to end on drawn scenes."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    corners = np.array([(a, b, a + 64, b + 64) for b in (0, 64) for a in (0, 64)])
    images, truth = [], rng.integers(4, size=12)
    for where in truth:
        image = np.empty((128, 128))
        for i, (x0, y0, x1, y1) in enumerate(corners):
            period, angle = (6, 0.3) if i == where else (rng.uniform(4, 30), rng.uniform(0, 3.1))
            wave = (x * np.cos(angle) + y * np.sin(angle)) / period + rng.random()
            image[y0:y1, x0:x1] = np.sin(2 * np.pi * wave)
        images.append(image + rng.normal(size=(128, 128)) * 0.1)
    described = [sift.dense_sift(image) for image in images]
    words = sift.vocabulary(np.concatenate([d for d, _ in described]), k=30)
    boxes = np.broadcast_to(corners / 128, (12, 4, 4))
    features = np.stack(
        [
            sift.box_histograms(sift.nearest_words(d, words), p, b, k=30)
            for (d, p), b in zip(described, boxes, strict=True)
        ]
    )
    model = Colocalization(kernel="chi2", whole_box_features=30)
    np.testing.assert_array_equal(chosen(model, features, None, boxes), truth)
