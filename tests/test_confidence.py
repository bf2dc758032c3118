"""The confidence: known answers, a library's, and laws."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sensloc.prediction.confidence import (
    PENALTY,
    Confidence,
    ConfidenceBin,
    calibration_error,
    evidence,
    reliability,
)


def drawn(n: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return evidence, chances, and outcomes that have these chances."""
    rng = np.random.default_rng(seed)
    measured = rng.normal([1.0, -2.0, 0.5], [2.0, 0.5, 1.0], (n, 3))
    chance = 1 / (
        1 + np.exp(-(0.7 * measured[:, 0] + 1.5 * (measured[:, 1] + 2) - 0.4 * measured[:, 2]))
    )
    return measured, chance, rng.random(n) < chance


def test_it_is_scikit_learns_regression() -> None:
    measured, _, right = drawn()
    ours = Confidence.fit(measured, right)
    standard = (measured - measured.mean(0)) / measured.std(0)
    theirs = LogisticRegression(C=1 / (PENALTY * len(measured)), tol=1e-10, max_iter=1000)
    theirs.fit(standard, right)
    np.testing.assert_allclose(ours.weights, theirs.coef_[0], atol=1e-3)
    np.testing.assert_allclose(ours(measured), theirs.predict_proba(standard)[:, 1], atol=1e-3)


def test_it_finds_the_chances_that_made_the_outcomes() -> None:
    measured, _, right = drawn()
    unseen, chance, _ = drawn(seed=1)
    assert np.abs(Confidence.fit(measured, right)(unseen) - chance).mean() < 0.02


def test_units_of_the_evidence_do_not_matter() -> None:
    measured, _, right = drawn()
    units = np.array([1e3, 1e-3, -7.0])
    np.testing.assert_allclose(
        Confidence.fit(measured * units + 5, right)(measured * units + 5),
        Confidence.fit(measured, right)(measured),
        atol=1e-9,
    )


@pytest.mark.parametrize("outcome", [True, False])
def test_where_all_are_alike_it_is_sure_and_finite(outcome: bool) -> None:
    measured, _, right = drawn(200)
    values = Confidence.fit(measured, np.full_like(right, outcome))(measured)
    assert np.isfinite(values).all()
    assert (np.abs(values - outcome) < 0.05).all()


def test_what_does_not_vary_does_not_count() -> None:
    measured, _, right = drawn()
    measured[:, 2] = 3.0
    assert Confidence.fit(measured, right).weights[2] == 0


def test_of_no_images_nothing_is_learned() -> None:
    with pytest.raises(ValueError, match="no images"):
        Confidence.fit(np.empty((0, 3)), np.empty(0, bool))


def test_evidence_by_hand() -> None:
    boxes = np.array([[0, 0, 1, 1], [0, 0, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]])
    maps = np.array([[1, 1, 1, 1], [3, 0, 0, 0], [0, 0, 0, 0]])
    values = evidence(np.array([0.5, 1.0, 0.0]), boxes, maps)
    np.testing.assert_allclose(values[0, :3], [0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(values[1, 1:3], np.log([0.25, 0.25]))
    np.testing.assert_allclose(values[:2, 4], np.log([1, 3]), err_msg="the mean in the box")
    assert (values[:2, 3] > 10).all(), "all of the mass is in the box"
    assert values[2, 2] == 0
    assert np.isfinite(values).all()


def test_a_maps_scale_matters_for_its_mean_alone() -> None:
    rng = np.random.default_rng(0)
    maps, boxes, p = rng.random((5, 9)), np.tile([0.1, 0.1, 0.9, 0.8], (5, 1)), rng.random(5)
    large, small = evidence(p, boxes, maps), evidence(p, boxes, 1e-3 * maps)
    np.testing.assert_allclose(large[:, :4], small[:, :4])
    np.testing.assert_allclose(large[:, 4], small[:, 4] + np.log(1e3))


def test_reliability_by_hand() -> None:
    confidence = np.array([0.9, 0.1, 0.7, 0.3])
    bins = reliability(confidence, np.array([True, False, False, False]), bins=2)
    assert bins == (ConfidenceBin(2, 0.2, 0.0), ConfidenceBin(2, 0.8, 0.5))
    assert calibration_error(bins) == pytest.approx((2 * 0.2 + 2 * 0.3) / 4)


def test_honest_confidences_have_a_small_error_and_others_a_large_one() -> None:
    _, chance, right = drawn(20_000)
    assert calibration_error(reliability(chance, right)) < 0.02
    assert calibration_error(reliability(1 - chance, right)) > 0.2


def test_bins_hold_all_images_once() -> None:
    _, chance, right = drawn(103)
    bins = reliability(chance, right)
    assert sum(b.images for b in bins) == 103
    assert sum(b.images * b.right for b in bins) == pytest.approx(right.sum())
    assert len(reliability(chance[:3], right[:3])) == 3
    assert reliability(chance[:0], right[:0]) == ()
