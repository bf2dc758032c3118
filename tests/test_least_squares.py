"""Least squares is an algebra of sums, and the linear map that solves them is exact."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.utils.estimator_checks import parametrize_with_checks

from sensloc.methods.estimator import LinearRegressor
from sensloc.methods.least_squares import QUANTUM, NormalEquations, quantise

LAW = settings(max_examples=50, deadline=None, derandomize=True)

seeds = st.integers(0, 2**31)


def data(n: int, d: int = 12, t: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, d] in [0, 1] and targets [n, t] that depend on them, with noise."""
    rng = np.random.default_rng(seed)
    x = rng.random((n, d))
    return x, x @ rng.standard_normal((d, t)) + 0.3 * rng.standard_normal((n, t)) + 5


def exact(n: int, d: int = 12, t: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The same on the grid of ``quantise``, in [-1, 1]."""
    rng = np.random.default_rng(seed)
    return quantise(rng.uniform(-1, 1, (n, d))), quantise(rng.uniform(-1, 1, (n, t)))


def sums(x: np.ndarray, y: np.ndarray) -> NormalEquations:
    return NormalEquations.from_batch(x, y)


def same(a: NormalEquations, b: NormalEquations) -> bool:
    """To the bit."""
    pairs = [(a.x, b.x), (a.y, b.y), (a.xx, b.xx), (a.xy, b.xy)]
    return a.n == b.n and all(np.array_equal(one, other) for one, other in pairs)


def centred_lstsq(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """numpy's own answer, the one of least norm: weights [t, d] and intercept [t]."""
    weights = np.linalg.lstsq(x - x.mean(0), y - y.mean(0), rcond=1e-10)[0]
    return weights.T, y.mean(0) - x.mean(0) @ weights


# ------------------------------------------------------------------------------- the algebra


@LAW
@given(seeds, st.floats(1e-3, 10))
def test_quantise_rounds_to_the_nearest_multiple(seed: int, size: float):
    values = np.random.default_rng(seed).uniform(-size, size, 100)
    rounded = quantise(values)
    assert np.abs(rounded - values).max() <= 2**-15
    assert np.array_equal(rounded / QUANTUM, np.rint(rounded / QUANTUM))
    assert np.array_equal(quantise(rounded), rounded)
    assert np.array_equal(quantise(-values), -rounded)


@LAW
@given(seeds)
def test_merge_is_associative_commutative_and_has_an_identity(seed: int):
    a, b, c = (sums(*exact(n, seed=seed + n)) for n in (1, 5, 8))
    zeros = NormalEquations.zeros(12, 4)
    assert same(a.merge(b.merge(c)), a.merge(b).merge(c))
    assert same(a.merge(b), b.merge(a))
    assert same(zeros.merge(a), a)
    assert same(a.merge(zeros), a)
    assert same(sums(np.empty((0, 12)), np.empty((0, 4))), zeros)


@LAW
@given(seeds)
def test_on_arbitrary_floats_the_laws_hold_up_to_rounding(seed: int):
    x, y = data(40, seed=seed)
    a, b, c = sums(x[:3], y[:3]), sums(x[3:20], y[3:20]), sums(x[20:], y[20:])
    assert same(a.merge(b), b.merge(a))
    assert np.allclose(a.merge(b.merge(c)).xx, sums(x, y).xx, rtol=1e-13)
    assert np.allclose(a.merge(b).merge(c).xy, sums(x, y).xy, rtol=1e-13)


@LAW
@given(seeds, st.sampled_from([1, 2, 5]), st.integers(1, 200))
def test_no_partition_order_or_batch_size_changes_a_bit(seed: int, parts: int, batch_size: int):
    x, y = exact(300, seed=seed)
    rng = np.random.default_rng(seed)
    workers = np.array_split(rng.permutation(300), np.sort(rng.integers(0, 300, parts - 1)))
    partial = []
    for rows in workers:
        one = NormalEquations.zeros(12, 4)
        for batch in np.split(rows, range(batch_size, len(rows), batch_size)):
            one = one.merge(sums(x[batch], y[batch]))
        partial.append(one)
    whole = NormalEquations.zeros(12, 4)
    for i in rng.permutation(parts):
        whole = partial[i].merge(whole)
    assert whole.n == 300
    assert same(whole, sums(x, y))
    assert np.array_equal(whole.solve(1e-3).coef_, sums(x, y).solve(1e-3).coef_)


def test_the_sums_are_exact_integers_of_the_quantum():
    x, y = exact(200)
    whole = sums(x, y)
    integers = [np.rint(v / QUANTUM).astype(np.int64) for v in (x, y)]
    assert np.array_equal(whole.xx / QUANTUM**2, integers[0].T @ integers[0])
    assert np.array_equal(whole.xy / QUANTUM**2, integers[0].T @ integers[1])


@pytest.mark.parametrize(
    ("features", "targets"),
    [((5, 3), (4, 2)), ((5,), (5, 2)), ((5, 3), (5,)), ((2, 5, 3), (2, 5, 3))],
)
def test_a_batch_of_the_wrong_shape_is_refused(features, targets):
    with pytest.raises(ValueError, match="want"):
        sums(np.zeros(features), np.zeros(targets))


@pytest.mark.parametrize(("features", "targets"), [(3, 4), (12, 2), (12, 1), (1, 4), (1, 1)])
def test_sums_of_other_shapes_do_not_merge(features: int, targets: int):
    with pytest.raises(ValueError, match=r"shape|features|targets|broadcast"):
        sums(*exact(9)).merge(sums(*exact(9, features, targets)))


def test_no_rows_cannot_be_solved():
    with pytest.raises(ValueError, match="no rows"):
        NormalEquations.zeros(3, 2).solve(1.0)


# ------------------------------------------------------------------------------- the solution


@pytest.mark.parametrize("n", [40, 500])
def test_without_a_ridge_it_is_numpys_least_squares(n: int):
    x, y = data(n)
    fitted = sums(x, y).solve(0.0)
    weights, intercept = centred_lstsq(x, y)
    assert np.allclose(fitted.coef_, weights, rtol=1e-9, atol=1e-10)
    assert np.allclose(fitted.intercept_, intercept, rtol=1e-9)
    residual = y - fitted.predict(x)
    assert np.abs(residual.mean(0)).max() < 1e-12
    assert np.abs(x.T @ residual).max() < 1e-9


@pytest.mark.parametrize("ridge", [1e-6, 1e-3, 0.1, 10.0])
@pytest.mark.parametrize("n", [8, 60, 500])  # 8 rows: fewer than features
def test_with_a_ridge_it_is_scikit_learns(n: int, ridge: float):
    x, y = data(n)
    fitted, theirs = (
        LinearRegressor(ridge).fit(x, y),
        Ridge(alpha=n * ridge, solver="svd").fit(x, y),
    )
    assert np.allclose(fitted.coef_, theirs.coef_, rtol=1e-7, atol=1e-9)
    assert np.allclose(fitted.intercept_, theirs.intercept_, rtol=1e-8)
    assert np.allclose(fitted.predict(x), theirs.predict(x), rtol=1e-8)


def test_at_an_infinite_ridge_it_is_the_mean_target():
    x, y = exact(256)  # a power of two, so that the mean itself is exact
    fitted = sums(x, y).solve(np.inf)
    assert not fitted.coef_.any()
    assert np.array_equal(fitted.intercept_, y.mean(0))
    assert np.array_equal(fitted.predict(x), np.tile(y.mean(0), (256, 1)))
    assert np.allclose(sums(x, y).solve(1e12).predict(x), y.mean(0), atol=1e-10)


def test_a_larger_ridge_gives_smaller_weights_and_a_better_condition():
    path = sums(*data(60)).path([0.0, 1e-4, 1e-2, 1.0, 100.0])
    norms = [np.linalg.norm(fitted.coef_) for fitted in path]
    conditions = [fitted.condition_number_ for fitted in path]
    assert norms == sorted(norms, reverse=True)
    assert conditions == sorted(conditions, reverse=True)
    assert conditions[-1] == pytest.approx(1, abs=0.01)


def test_the_condition_number_is_that_of_the_penalised_covariance():
    x, y = data(100)
    for ridge in (0.0, 0.1):
        expected = np.linalg.cond(np.cov(x.T, bias=True) + ridge * np.eye(12))
        assert sums(x, y).solve(ridge).condition_number_ == pytest.approx(expected, rel=1e-9)


def test_a_path_is_one_solution_at_a_time():
    whole, ridges = sums(*data(60)), [0.0, 1e-3, 1.0, np.inf]
    for ridge, fitted in zip(ridges, whole.path(ridges), strict=True):
        alone = whole.solve(ridge)
        assert fitted.ridge == ridge
        assert np.array_equal(fitted.coef_, alone.coef_)
        assert np.array_equal(fitted.intercept_, alone.intercept_)
        assert fitted.condition_number_ == alone.condition_number_


def deficient(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features that do not span their space."""
    x, y = exact(40, 10, 2, seed=seed)
    if kind == "copied":
        x[:, 5:] = x[:, :5]
    elif kind == "constant":
        x[:, 3:] = quantise(np.random.default_rng(seed).random(7))
    elif kind == "fewer rows than features":
        return x[:6], y[:6]
    elif kind == "one row":
        return x[:1], y[:1]
    return x, y


@pytest.mark.parametrize("kind", ["copied", "constant", "fewer rows than features", "one row"])
def test_without_a_ridge_deficient_features_get_the_least_norm(kind: str):
    for seed in range(10):
        x, y = deficient(kind, seed)
        fitted, (weights, intercept) = LinearRegressor(0.0).fit(x, y), centred_lstsq(x, y)
        new = exact(20, 10, seed=seed + 1)[0]
        assert np.allclose(fitted.predict(x), x @ weights.T + intercept, atol=1e-9)
        assert np.allclose(fitted.predict(new), new @ weights.T + intercept, atol=1e-7)


@pytest.mark.parametrize("value", [0.1, 0.3])
def test_features_that_do_not_vary_get_weight_zero(value: float):
    x, y = data(30)
    constant = LinearRegressor(0.0).fit(np.full_like(x, value), y)
    assert np.abs(constant.coef_).max() < 1e-9
    x[:, 2] = value
    assert np.abs(LinearRegressor(0.0).fit(x, y).coef_[:, 2]).max() < 1e-9


# ------------------------------------------------------------------------------- the estimator


@parametrize_with_checks([LinearRegressor()])
def test_it_is_a_scikit_learn_estimator(estimator, check):
    check(estimator)


def test_learning_in_chunks_is_learning_at_once():
    x, y = exact(100)
    once, chunks = LinearRegressor(1e-3).fit(x, y), LinearRegressor(1e-3)
    for rows in np.split(np.random.default_rng(0).permutation(100), [1, 2, 30, 31]):
        chunks.partial_fit(x[rows], y[rows])
    assert chunks.n_samples_seen_ == 100
    assert np.array_equal(chunks.coef_, once.coef_)
    assert np.array_equal(chunks.intercept_, once.intercept_)


def test_fit_forgets_what_was_learned_before():
    old, new = exact(50, seed=1), exact(60, d=7, t=2, seed=2)
    again = LinearRegressor(1e-3).fit(*old).partial_fit(*old).fit(*new)
    fresh = LinearRegressor(1e-3).fit(*new)
    assert again.n_samples_seen_ == 60
    assert np.array_equal(again.predict(new[0]), fresh.predict(new[0]))


def test_one_target_may_be_flat():
    x, y = data(50, t=1)
    flat, tall = LinearRegressor().fit(x, y[:, 0]), LinearRegressor().fit(x, y)
    assert flat.predict(x).shape == (50,)
    assert np.array_equal(flat.predict(x), tall.predict(x)[:, 0])


@pytest.mark.parametrize("targets", [3, 1, 0])
def test_more_rows_must_have_the_same_targets(targets: int):
    x, y = data(20, t=4)
    for first, more in ((y, y[:, :targets]), (y[:, :targets], y)):
        fitted = LinearRegressor().fit(x, first if first.shape[1] else y[:, 0])
        with pytest.raises(ValueError, match=r"shape|target|broadcast|1d|feature"):
            fitted.partial_fit(x, more if more.shape[1] else y[:, 0])


def test_wrong_shapes_are_refused():
    x, y = data(20)
    fitted = LinearRegressor().fit(x, y)
    with pytest.raises(ValueError, match="features"):
        fitted.predict(x[:, :5])
    with pytest.raises(ValueError, match="features"):
        fitted.partial_fit(x[:, :5], y)
    with pytest.raises(ValueError, match="inconsistent"):
        LinearRegressor().fit(x, y[:19])
    with pytest.raises(NotFittedError):
        LinearRegressor().predict(x)
