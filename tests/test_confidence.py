"""The confidence: known answers, a library's, and laws."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sensloc.prediction.confidence import (
    PENALTY,
    Bin,
    Confidence,
    calibration_error,
    evidence,
    reliability,
)


def drawn(n: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Evidence, chances, and outcomes that have these chances."""
    rng = np.random.default_rng(seed)
    seen = rng.normal([1.0, -2.0, 0.5], [2.0, 0.5, 1.0], (n, 3))
    chance = 1 / (1 + np.exp(-(0.7 * seen[:, 0] + 1.5 * (seen[:, 1] + 2) - 0.4 * seen[:, 2])))
    return seen, chance, rng.random(n) < chance


def test_it_is_scikit_learns_regression() -> None:
    seen, _, right = drawn()
    ours = Confidence.fit(seen, right)
    standard = (seen - seen.mean(0)) / seen.std(0)
    theirs = LogisticRegression(C=1 / (PENALTY * len(seen)), tol=1e-10, max_iter=1000)
    theirs.fit(standard, right)
    np.testing.assert_allclose(ours.weights, theirs.coef_[0], atol=1e-3)
    np.testing.assert_allclose(ours(seen), theirs.predict_proba(standard)[:, 1], atol=1e-3)


def test_it_finds_the_chances_that_made_the_outcomes() -> None:
    seen, _, right = drawn()
    unseen, chance, _ = drawn(seed=1)
    assert np.abs(Confidence.fit(seen, right)(unseen) - chance).mean() < 0.02


def test_units_of_the_evidence_do_not_matter() -> None:
    seen, _, right = drawn()
    units = np.array([1e3, 1e-3, -7.0])
    np.testing.assert_allclose(
        Confidence.fit(seen * units + 5, right)(seen * units + 5),
        Confidence.fit(seen, right)(seen),
        atol=1e-9,
    )


@pytest.mark.parametrize("outcome", [True, False])
def test_where_all_are_alike_it_is_sure_and_finite(outcome: bool) -> None:
    seen, _, right = drawn(200)
    found = Confidence.fit(seen, np.full_like(right, outcome))(seen)
    assert np.isfinite(found).all()
    assert (np.abs(found - outcome) < 0.05).all()


def test_what_does_not_vary_does_not_count() -> None:
    seen, _, right = drawn()
    seen[:, 2] = 3.0
    assert Confidence.fit(seen, right).weights[2] == 0


def test_of_no_images_nothing_is_learned() -> None:
    with pytest.raises(ValueError, match="no images"):
        Confidence.fit(np.empty((0, 3)), np.empty(0, bool))


def test_evidence_by_hand() -> None:
    boxes = np.array([[0, 0, 1, 1], [0, 0, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]])
    maps = np.array([[1, 1, 1, 1], [3, 0, 0, 0], [0, 0, 0, 0]])
    found = evidence(np.array([0.5, 1.0, 0.0]), boxes, maps)
    np.testing.assert_allclose(found[0], [0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(found[1, 1:], np.log([0.25, 0.25]))
    assert found[2, 2] == 0
    assert np.isfinite(found).all()


def test_a_maps_scale_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    maps, boxes, p = rng.random((5, 9)), np.tile([0.1, 0.1, 0.9, 0.8], (5, 1)), rng.random(5)
    np.testing.assert_allclose(evidence(p, boxes, maps), evidence(p, boxes, 1e-3 * maps))


def test_reliability_by_hand() -> None:
    confidence = np.array([0.9, 0.1, 0.7, 0.3])
    bins = reliability(confidence, np.array([True, False, False, False]), bins=2)
    assert bins == (Bin(2, 0.2, 0.0), Bin(2, 0.8, 0.5))
    assert calibration_error(bins) == pytest.approx((2 * 0.2 + 2 * 0.3) / 4)


def test_honest_confidences_have_a_small_error_and_others_a_large_one() -> None:
    _, chance, right = drawn(20_000)
    assert calibration_error(reliability(chance, right)) < 0.02
    assert calibration_error(reliability(1 - chance, right)) > 0.2


def test_bins_hold_all_images_once() -> None:
    _, chance, right = drawn(103)
    bins = reliability(chance, right)
    assert sum(one.images for one in bins) == 103
    assert sum(one.images * one.right for one in bins) == pytest.approx(right.sum())
    assert len(reliability(chance[:3], right[:3])) == 3
    assert reliability(chance[:0], right[:0]) == ()
