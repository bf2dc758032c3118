"""CorLoc is integer counts; its interval is that of a bootstrap over images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensloc.boxes import iou
from sensloc.scoring.corloc import best_iou, class_mean, count_correct, headroom, share

LAW = settings(max_examples=50, deadline=None, derandomize=True)

WHOLE, LEFT, QUARTER = [0, 0, 1, 1], [0, 0, 0.5, 1], [0, 0, 0.5, 0.5]


def ragged(n: int, seed: int = 0) -> list[np.ndarray]:
    """The boxes of n images, one to four each."""
    rng = np.random.default_rng(seed)
    boxes = np.sort(rng.random((n, 4, 2, 2)), axis=2).reshape(n, 4, 4)
    return [some[: rng.integers(1, 5)] for some in boxes]


def test_the_best_box_of_an_image_counts():
    truth = [np.array([QUARTER, LEFT]), np.array([QUARTER]), np.array([WHOLE, LEFT, QUARTER])]
    predicted = np.array([WHOLE, WHOLE, LEFT])
    assert np.array_equal(best_iou(predicted, truth), [0.5, 0.25, 1])


@LAW
@given(st.integers(1, 30), st.integers(0, 1000))
def test_best_iou_is_the_maximum_of_each_image(n: int, seed: int):
    truth = ragged(n, seed)
    predicted = np.array([boxes[0] for boxes in ragged(n, seed + 1)])
    loop = [iou(box, boxes).max() for box, boxes in zip(predicted, truth, strict=True)]
    assert np.array_equal(best_iou(predicted, truth), loop)


def test_candidates_may_stand_in_front():
    truth = ragged(10)
    drawn = [[boxes[0] for boxes in ragged(10, seed)] for seed in range(6)]
    candidates = np.array(drawn).reshape(2, 3, 10, 4)
    together = best_iou(candidates, truth)
    assert together.shape == (2, 3, 10)
    counts = count_correct(candidates, truth, 0.3)
    assert counts.shape == (2, 3)
    assert 0 < counts.sum() < 60
    for i, j in np.ndindex(2, 3):
        assert np.array_equal(together[i, j], best_iou(candidates[i, j], truth))
        assert counts[i, j] == count_correct(candidates[i, j], truth, 0.3)


def test_the_threshold_itself_is_right():
    truth = [np.array([LEFT])]
    assert best_iou(np.array([WHOLE]), truth) == 0.5
    assert count_correct(np.array([WHOLE]), truth, 0.5) == 1
    assert count_correct(np.array([WHOLE]), truth, np.nextafter(0.5, 1)) == 0
    assert count_correct(np.array([QUARTER]), [np.array([WHOLE])], 0.5) == 0


def test_counting_in_parts_is_counting_at_once():
    truth, predicted = ragged(50), np.array([boxes[0] for boxes in ragged(50, 1)])
    parts = [slice(0, 7), slice(7, 7), slice(7, 30), slice(30, 50)]
    counts = [count_correct(predicted[part], truth[part], 0.4) for part in parts]
    assert sum(counts) == count_correct(predicted, truth, 0.4) > 0


def test_no_images_have_nothing_right():
    assert count_correct(np.empty((0, 4)), [], 0.5) == 0
    assert np.array_equal(count_correct(np.empty((3, 2, 0, 4)), [], 0.5), np.zeros((3, 2)))


# ------------------------------------------------------------------------------- intervals


def test_the_interval_is_that_of_a_bootstrap_over_images():
    right = np.repeat([True, False], [140, 260])
    drawn = np.random.default_rng(1).choice(right, (5000, 400)).mean(1) * 100
    expected = np.percentile(drawn, [2.5, 97.5])
    interval = share(140, 400, 20_000, 0)
    assert interval.value == 35
    assert [interval.low, interval.high] == pytest.approx(expected, abs=0.6)


def test_the_interval_of_the_class_mean_resamples_within_classes():
    correct, images = [18, 5, 40], [20, 50, 60]
    rng = np.random.default_rng(1)
    drawn = [
        rng.choice(np.arange(n) < k, (5000, n)).mean(1)
        for k, n in zip(correct, images, strict=True)
    ]
    expected = np.percentile(np.mean(drawn, axis=0) * 100, [2.5, 97.5])
    interval = class_mean(correct, images, 20_000, 0)
    assert interval.value == pytest.approx(100 * (18 / 20 + 5 / 50 + 40 / 60) / 3)
    assert [interval.low, interval.high] == pytest.approx(expected, abs=0.6)


@LAW
@given(st.integers(1, 5000), st.data(), st.integers(0, 1000))
def test_the_interval_holds_the_value_and_is_a_share(n: int, data: st.DataObject, seed: int):
    k = data.draw(st.integers(0, n))
    interval = share(k, n, 2000, seed)
    assert interval.value == pytest.approx(100 * k / n)
    assert 0 <= interval.low <= interval.value + 1e-9
    assert interval.value - 1e-9 <= interval.high <= 100
    assert class_mean([k], [n], 2000, seed) == interval


def test_fewer_images_have_a_wider_interval():
    widths = [(i.high - i.low) for i in (share(4 * n, 10 * n, 5000, 0) for n in (2, 20, 200, 2000))]
    assert widths == sorted(widths, reverse=True)
    assert widths[1] / widths[3] == pytest.approx(10, rel=0.15)  # as the square root of n


def test_all_or_nothing_right_has_no_width():
    for k, value in ((0, 0), (30, 100)):
        interval = share(k, 30, 100, 0)
        assert (interval.low, interval.value, interval.high) == (value, value, value)


def test_the_class_mean_weighs_classes_alike():
    assert class_mean([1, 0], [1, 999], 100, 0).value == 50
    assert share(1, 1000, 100, 0).value == pytest.approx(0.1)


def test_an_interval_is_a_function_of_its_seed():
    zero, again, one = (class_mean([3, 50, 20], [7, 97, 31], 1000, seed) for seed in (0, 0, 1))
    assert zero == again
    assert zero != one


@pytest.mark.parametrize(("correct", "images"), [([], []), ([0], [0]), ([3, 0], [5, 0])])
def test_no_images_have_no_corloc(correct: list[int], images: list[int]):
    with pytest.raises(ValueError, match="no images"):
        class_mean(correct, images, 100, 0)


def test_more_right_than_there_are_is_refused():
    with pytest.raises(ValueError, match="p"):
        share(6, 5, 100, 0)


def test_headroom_is_the_way_from_the_constant_box_to_all() -> None:
    assert headroom(75.0, 50.0) == 50
    assert headroom(40.0, 50.0) == -20
    assert headroom(100.0, 50.0) == 100
    assert headroom(90.0, None) is None
    assert headroom(100.0, 100.0) is None
