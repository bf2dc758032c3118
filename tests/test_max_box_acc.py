"""MaxBoxAccV2 against maps whose boxes are known, and against a naive way to count."""

from functools import reduce
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_heatmap import WHOLE, painted, random_maps

from sensloc.boxes import Boxes, iou
from sensloc.scoring.max_box_acc import DELTAS, LEVELS, MaxBoxAcc
from sensloc.scoring.regions import upsample

TRUTH = np.array([[0, 0, 0.5, 0.5]])


def random_truth(n: int, seed: int = 0) -> list[Boxes]:
    """One to three boxes per image, small ones too."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(0.1, 1, (n, 3, 2))
    corner = rng.random((n, 3, 2)) * (1 - size)
    boxes = np.concatenate([corner, corner + size], axis=-1)
    return [each[: rng.integers(1, 4)] for each in boxes]


def levels(*values_and_runs: tuple[int, int]) -> list[int]:
    """Counts per level, run by run."""
    return [value for value, run in values_and_runs for _ in range(run)]


def test_any_component_with_any_object_is_right():
    heat = painted(8, (1, 1, 3, 3, 1), (4, 5, 8, 8, 0.5))[None]
    first, second = np.array([[1, 1, 3, 3], [4, 5, 8, 8]]) / 8
    counted = MaxBoxAcc.from_batch(heat, [np.array([first, second])], side=8)
    assert counted.n == 1
    assert counted.counts.tolist() == [levels((1, 100))] * 3
    counted = MaxBoxAcc.from_batch(heat, [np.array([second])], side=8)
    assert counted.counts.tolist() == [levels((1, 50), (0, 50))] * 3
    assert counted.per_delta == (100, 100, 100)


def test_each_delta_has_its_own_best_level():
    wide = painted(8, (0, 0, 8, 8, 0.5), (7, 7, 8, 8, 0), (0, 0, 4, 4, 1))  # IoU 1/4, then 1
    double = painted(8, (0, 0, 8, 4, 0.5), (0, 0, 2, 2, 1))  # IoU 1/2, then 1/4
    small = painted(8, (0, 0, 3, 2, 0.5), (0, 0, 1, 1, 1))  # IoU 3/8, then 1/16
    counted = MaxBoxAcc.from_batch(np.array([wide, double, small]), [TRUTH] * 3, side=8)
    assert counted.counts.tolist() == [
        levels((2, 50), (1, 50)),
        levels((1, 100)),
        levels((0, 50), (1, 50)),
    ]
    assert counted.per_delta == (200 / 3, 100 / 3, 100 / 3)
    assert counted.value == pytest.approx(400 / 9)


def test_a_flat_map_is_wrong_even_of_a_whole_image():
    values = np.append(np.random.default_rng(0).random(50), [0, 1])  # interpolation rounds some
    flat = np.broadcast_to(values[:, None, None], (52, 28, 28))
    counted = MaxBoxAcc.from_batch(flat, [np.array([WHOLE])] * 52, side=103)
    assert counted.n == 52
    assert counted.per_delta == (0, 0, 0)


def test_a_map_scaled_is_the_same_map():
    maps, truth = random_maps(6, 8).astype(np.float64), random_truth(6)
    plain = MaxBoxAcc.from_batch(maps, truth, side=8)
    assert np.array_equal(MaxBoxAcc.from_batch(maps / 8, truth, side=8).counts, plain.counts)


def naive_components(mask: np.ndarray) -> list[list[int]]:
    """Boxes of the 8-connected components, by flood fill."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    boxes = []
    while left:
        seen = [left.pop()]
        for y, x in seen:
            near = {(y + dy, x + dx) for dy, dx in product((-1, 0, 1), repeat=2)} & left
            left -= near
            seen.extend(near)
        ys, xs = zip(*seen, strict=True)
        boxes.append([min(xs), min(ys), max(xs) + 1, max(ys) + 1])
    return boxes


def naive_counts(heat: np.ndarray, truth: Boxes) -> list[list[int]]:
    """Of one map at its own side."""
    heat = (heat - heat.min()) / (heat.max() - heat.min())
    best = [
        iou(np.array(naive_components(heat >= level))[:, None] / len(heat), truth).max()
        for level in LEVELS
    ]
    return [[int(value >= delta) for value in best] for delta in DELTAS]


@pytest.mark.parametrize(("small", "side"), [(10, 10), (3, 12), (5, 16)])
def test_the_fast_way_is_the_naive_way(small: int, side: int):
    maps, truth = random_maps(8, small, seed=side).astype(np.float64), random_truth(8, seed=side)
    right = 0
    for heat, boxes in zip(maps, truth, strict=True):
        counted = MaxBoxAcc.from_batch(heat[None], [boxes], side)
        assert counted.counts.tolist() == naive_counts(upsample(heat[None], side)[0], boxes)
        right += counted.counts.sum()
    assert right > 0


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 5), max_size=4), st.integers(0, 2**32 - 1))
def test_maxboxacc_is_a_commutative_monoid(sizes: list[int], seed: int):
    n = sum(sizes)
    maps, truth = random_maps(n, 4, seed), random_truth(n, seed)
    ends = np.cumsum([0, *sizes])
    parts = [MaxBoxAcc.from_batch(maps[a:b], truth[a:b], side=8) for a, b in pairwise(ends)]
    whole = MaxBoxAcc.from_batch(maps, truth, side=8)
    for order in (parts, parts[::-1], [*parts, MaxBoxAcc.zeros()]):
        merged = reduce(MaxBoxAcc.merge, order, MaxBoxAcc.zeros())
        assert merged.n == whole.n == n
        assert merged.counts.dtype == np.int64
        assert np.array_equal(merged.counts, whole.counts)
    right = reduce(lambda a, b: b.merge(a), parts, MaxBoxAcc.zeros())
    assert np.array_equal(right.counts, whole.counts)
    assert (np.diff(whole.counts, axis=0) <= 0).all()


def test_no_images_have_no_maxboxacc():
    with pytest.raises(ValueError, match="no images"):
        _ = MaxBoxAcc.zeros().value


def test_maps_and_truth_are_of_the_same_images():
    with pytest.raises(ValueError, match="zip"):
        MaxBoxAcc.from_batch(np.zeros((2, 3, 3)), [TRUTH])


def test_the_levels():
    assert np.allclose(LEVELS, np.arange(0.01, 1.001, 0.01))
