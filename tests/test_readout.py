"""The read-out: sums with laws, exact to the bit, and least squares that is known by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from sensloc.heatmaps.foreground import Placed
from sensloc.heatmaps.readout import (
    LIMIT,
    CellSums,
    Moments,
    Readout,
    covered,
    penalties,
    quantise,
)
from sensloc.stages.cell_sums import sums_of, table_of

CELLS, VALUES = 4, 3


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Values [n, P, d] and shares [n, P] of n images, on the grid of exact sums."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1.5, (n, CELLS, VALUES))
    shares = 0.5 + values @ [0.2, -0.1, 0.0] + rng.normal(0, 0.05, (n, CELLS))
    return quantise(values), quantise(shares)


def same(a: CellSums, b: CellSums) -> bool:
    return a.n == b.n and all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in ("x", "y", "xx", "xy", "yy")
    )


# --------------------------------------------------------------------------- sums


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.randoms())
def test_sums_are_equal_to_the_bit_for_any_sharding_and_order(sizes: list[int], dice) -> None:
    values, shares = drawn(sum(sizes))
    cuts = np.cumsum(sizes)[:-1]
    parts = [
        CellSums.from_batch(x, y)
        for x, y in zip(np.split(values, cuts), np.split(shares, cuts), strict=True)
    ]
    dice.shuffle(parts)
    total = CellSums.zeros(CELLS, VALUES)
    for part in parts:
        total = total.merge(part)
    assert same(total, CellSums.from_batch(values, shares))


def test_a_file_holds_the_sums_of_each_class_and_part_to_the_bit() -> None:
    sums = {(3, 0): CellSums.from_batch(*drawn(7)), (-1, 2): CellSums.from_batch(*drawn(2, seed=1))}
    read = dict(sums_of(table_of(sums, [("broken", "no image")])))
    assert read.keys() == sums.keys()
    assert all(same(read[key], sums[key]) for key in sums)


def test_sums_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[n, P, d\] values"):
        CellSums.from_batch(np.zeros((2, CELLS, VALUES)), np.zeros((2, CELLS + 1)))
    with pytest.raises(ValueError, match="cannot merge"):
        CellSums.zeros(CELLS, VALUES).merge(CellSums.zeros(CELLS, VALUES + 1))
    with pytest.raises(ValueError, match="no images"):
        _ = CellSums.zeros(CELLS, VALUES).means


def test_values_are_clipped_and_rounded() -> None:
    found = quantise(np.array([-9.0, 9.0, 0.1, 2.0**-13 * 1.01]))
    np.testing.assert_array_equal(found[:2], [-LIMIT, LIMIT])
    np.testing.assert_array_equal(found * 2**12, np.rint(found * 2**12))
    np.testing.assert_allclose(found[2:], [0.1, 2.0**-12], atol=2.0**-13)


def test_moments_are_those_of_values_less_their_means() -> None:
    values, shares = drawn(50)
    other = CellSums.from_batch(*drawn(30, seed=1)).means
    for means in (CellSums.from_batch(values, shares).means, other):
        x = (values - means.x).reshape(-1, VALUES)
        y = (shares - means.y).ravel()
        found = CellSums.from_batch(values, shares).about(means)
        np.testing.assert_allclose(found.xx, x.T @ x, atol=1e-9)
        np.testing.assert_allclose(found.xy, x.T @ y, atol=1e-9)
        assert found.yy == pytest.approx(y @ y)
        weights = np.array([[0.3, 0.1, -0.2], [0, 0, 0]])
        errors = [((y - x @ w) ** 2).sum() for w in weights]
        np.testing.assert_allclose(found.squared_error(weights), errors)


# --------------------------------------------------------------------------- least squares


def moments(n: int = 200, seed: int = 0) -> tuple[Moments, np.ndarray, np.ndarray]:
    values, shares = drawn(n, seed)
    sums = CellSums.from_batch(values, shares)
    x = (values - sums.means.x).reshape(-1, VALUES)
    return sums.about(sums.means), x, (shares - sums.means.y).ravel()


def test_shared_weights_are_ridge_regression_on_standardised_values() -> None:
    found, x, y = moments()
    deviations = found.deviations
    np.testing.assert_allclose(deviations, x.std(0))
    ridge = Ridge(alpha=0.3 * len(x), fit_intercept=False).fit(x / deviations, y)
    weights = found.shared(deviations, np.full(VALUES, 0.3))
    np.testing.assert_allclose(weights, ridge.coef_ / deviations)


def test_own_weights_are_ridge_regression_on_the_residuals() -> None:
    found, x, y = moments(40, seed=2)
    deviations, shared = np.array([1.0, 2.0, 0.5]), np.array([[0.2, 0.0, 0.1], [0, 0, 0]])
    own = found.own(shared, deviations, [1, 50], CELLS)
    assert own.shape == (2, 2, VALUES)
    for k, w in enumerate(shared):
        for s, images in enumerate((1, 50)):
            ridge = Ridge(alpha=images * CELLS, fit_intercept=False)
            change = ridge.fit(x / deviations, y - x @ w).coef_ / deviations
            np.testing.assert_allclose(own[k, s], w + change, atol=1e-10)


def test_a_class_without_images_has_what_all_share() -> None:
    shared = np.array([[0.2, 0.0, 0.1]])
    empty = CellSums.zeros(CELLS, VALUES).about(CellSums.from_batch(*drawn(9)).means)
    own = empty.own(shared, np.ones(VALUES), [5], CELLS)
    np.testing.assert_array_equal(own[0], shared)


def test_penalties_are_one_on_maps_and_one_on_channels() -> None:
    np.testing.assert_array_equal(penalties([False, True], 4, 3.0), [1e-3, 3, 3, 3])
    np.testing.assert_array_equal(penalties([False, False], 2, 3.0), [1e-3, 1e-3])


# --------------------------------------------------------------------------- cells


def test_the_share_that_a_box_covers_by_hand() -> None:
    boxes = np.array([[0, 0, 0.5, 1], [0.25, 0.5, 1, 0.75], [0, 0, 1, 1]])
    found = covered(boxes, 2).reshape(-1, 2, 2)
    np.testing.assert_allclose(found[0], [[1, 0], [1, 0]])
    np.testing.assert_allclose(found[1], [[0, 0], [0.25, 0.5]])
    np.testing.assert_allclose(found[2], 1)
    rng = np.random.default_rng(0)
    low = rng.random((20, 2)) * 0.5
    some = np.concatenate([low, low + 0.1 + 0.4 * rng.random((20, 2))], axis=1)
    areas = (some[:, 2] - some[:, 0]) * (some[:, 3] - some[:, 1])
    np.testing.assert_allclose(covered(some, 7).mean(1), areas)


def test_a_class_that_has_no_weights_takes_the_shared_ones() -> None:
    readout = Readout(
        ("cam",), 1, *(np.zeros((1, 1), np.float32),) * 2, np.zeros((3, 1)), np.array([4, 9])
    )
    assert readout.row(np.array([4, 9, 0, 5, 12, -1])).tolist() == [1, 2, 0, 0, 0, 0]


@pytest.mark.parametrize("classes", [[], [2, 5, 9]])
def test_a_classes_row_is_found_where_the_labels_are(classes: list[int]) -> None:
    rng, labels = np.random.default_rng(0), np.arange(-1, 12)
    weights = rng.random((1 + len(classes), 3), np.float32)
    means = rng.random((4, 3), np.float32), rng.random(4, np.float32)
    readout = Readout(("inner_8",), 2, *means, weights, np.array(classes, np.int64))
    assert Placed(readout).row(torch.from_numpy(labels)).tolist() == readout.row(labels).tolist()
