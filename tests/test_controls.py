"""What a linear map is fed to learn what a map is worth: by hand, and floor and ceiling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensloc.boxes import Boxes, tidy
from sensloc.heatmaps.controls import box_mask, cell_overlaps, partners, pooled_image
from sensloc.methods.least_squares import NormalEquations
from sensloc.scoring.corloc import count_correct

GRID = 7


def random_boxes(n: int, seed: int, smallest: float = 0.2) -> Boxes:
    """[n, 4], each side at least ``smallest``."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(smallest, 1, (n, 2))
    corner = rng.random((n, 2)) * (1 - size)
    return np.concatenate([corner, corner + size], axis=1)


# ------------------------------------------------------------------------------- the image


def test_the_pooled_image_by_hand():
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    pixels[0, :2, :2] = (255, 0, 51)  # the whole first cell
    pixels[0, 0, 2] = (0, 204, 0)  # a quarter of the second
    pixels[1, 2:, 2:, 1] = 255
    cells = np.zeros((2, 4, 3))
    cells[0, 0] = (1, 0, 0.2)
    cells[0, 1] = (0, 0.2, 0)
    cells[1, 3] = (0, 1, 0)
    found = pooled_image(pixels, 2)
    assert found.dtype == np.float32
    assert np.allclose(found, cells.reshape(2, 12), atol=1e-6)


def test_a_pixel_between_two_cells_is_shared():
    pixels = np.zeros((1, 5, 5, 3), np.uint8)
    pixels[0, :, 2] = 255  # the middle column: half of it in either cell of 2.5 columns
    assert np.allclose(pooled_image(pixels, 2), 0.5 / 2.5)
    pixels[0, :, 1] = 255
    left, right = 1.5 / 2.5, 0.5 / 2.5
    assert np.allclose(pooled_image(pixels, 2).reshape(2, 2, 3)[:, :, 0], [[left, right]] * 2)


@pytest.mark.parametrize("grid", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("size", [1, 4, 5, 8])
def test_pooling_keeps_each_colours_mean(grid: int, size: int):
    pixels = np.random.default_rng(size).integers(0, 256, (3, size, size, 3), np.uint8)
    found = pooled_image(pixels, grid)
    assert found.shape == (3, grid * grid * 3)
    assert ((found >= 0) & (found <= 1 + 1e-6)).all()
    means = found.reshape(3, grid * grid, 3).mean(1)
    assert np.allclose(means, pixels.mean((1, 2)) / 255, atol=1e-5)
    if grid == size:
        assert np.allclose(found, pixels.reshape(3, -1) / 255, atol=1e-6)


# ------------------------------------------------------------------------------- the mask


def test_overlaps_by_hand():
    found = cell_overlaps(np.array([0.0, 0.5, 2.0]), np.array([3.0, 1.25, 2.0]), 3)
    assert np.array_equal(found, [[1, 0.5, 0], [1, 0.25, 0], [1, 0, 0]])


def test_the_mask_of_a_box_along_the_cells_is_exact():
    boxes = np.array([[0.25, 0, 0.75, 0.5], [0, 0, 1, 1], [0.75, 0.75, 1, 1]])
    masks = np.zeros((3, 4, 4))
    masks[0, :2, 1:3] = masks[1] = masks[2, 3, 3] = 1
    assert np.array_equal(box_mask(boxes, 4), masks.reshape(3, 16))


def test_the_mask_of_a_box_across_cells_by_hand():
    found = box_mask(np.array([[0.25, 0.5, 1, 0.75]]), 2)
    assert np.array_equal(found, [[0, 0, 0.25, 0.5]])


@pytest.mark.parametrize("grid", [1, 3, 14])
def test_a_mask_is_a_share_of_each_cell_and_sums_to_the_area(grid: int):
    boxes = random_boxes(50, 0, smallest=0.01)
    masks = box_mask(boxes, grid)
    assert masks.shape == (50, grid * grid)
    assert ((masks >= 0) & (masks <= 1 + 1e-12)).all()
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    assert np.allclose(masks.sum(1), area * grid**2)


unit = st.floats(0, 1)


@settings(deadline=None)
@given(unit, unit, unit, unit)
def test_the_marginals_of_a_mask_are_the_boxs_width_and_height(
    x: float, y: float, wide: float, high: float
):
    """Of a box of two cells' size and more: it covers a cell in full, each way."""
    width, height = (2 / GRID + side * (1 - 2 / GRID) for side in (wide, high))
    x0, y0 = x * (1 - width), y * (1 - height)
    (mask,) = box_mask(np.array([[x0, y0, x0 + width, y0 + height]]), GRID).reshape(1, GRID, GRID)
    assert mask.sum(1).max() / GRID == pytest.approx(width)
    assert mask.sum(0).max() / GRID == pytest.approx(height)
    centre = (np.arange(GRID) + 0.5) / GRID
    assert abs(mask.sum(0) @ centre / mask.sum() - (x0 + width / 2)) <= 0.5 / GRID
    assert abs(mask.sum(1) @ centre / mask.sum() - (y0 + height / 2)) <= 0.5 / GRID


# ------------------------------------------------------------------------------- partners

some_ids = st.lists(st.integers(0, 10**6).map(str), unique=True, max_size=30)


@settings(deadline=None)
@given(some_ids, st.integers(0, 2**32))
def test_partners_are_a_permutation_and_nobody_is_their_own(ids: list[str], seed: int):
    found = partners(ids, seed)
    assert found.dtype == np.int64
    assert sorted(found.tolist()) == list(range(len(ids)))
    if len(ids) > 1:
        assert (found != np.arange(len(ids))).all()


@pytest.mark.parametrize("n", [0, 1])
def test_who_is_alone_has_nobody_else(n: int):
    assert partners(["a"][:n], 0).tolist() == list(range(n))


@settings(deadline=None)
@given(st.data(), some_ids, st.integers(0, 3))
def test_partners_do_not_depend_on_the_order(data: st.DataObject, ids: list[str], seed: int):
    shuffled = data.draw(st.permutations(ids))

    def pairs(names: list[str]) -> dict[str, str]:
        return {name: names[i] for name, i in zip(names, partners(names, seed), strict=True)}

    assert pairs(shuffled) == pairs(ids)


def test_another_seed_draws_other_partners():
    ids = [f"n{i}" for i in range(100)]
    assert (partners(ids, 0) != partners(ids, 1)).mean() > 0.9


# ------------------------------------------------------------------------------- floor, ceiling

TRAIN, TEST = random_boxes(2000, 0), random_boxes(500, 1)


def right(predicted: Boxes) -> float:
    """Share of the held-out boxes that are right."""
    return float(count_correct(tidy(predicted), list(TEST[:, None]), 0.5)) / len(TEST)


def learned(train: Boxes, test: Boxes, ridge: float) -> float:
    """Of the linear map from maps to boxes that the train images teach."""
    return right(NormalEquations.from_batch(train, TRAIN).solve(ridge).predict(test))


MEAN_BOX = right(np.tile(TRAIN.mean(0), (len(TEST), 1)))
MARGIN = 4 * (MEAN_BOX * (1 - MEAN_BOX) / len(TEST)) ** 0.5
"""Four standard deviations of the binomial count."""


def test_the_ceiling_the_true_box_as_a_map_gives_the_box():
    assert learned(box_mask(TRAIN, GRID), box_mask(TEST, GRID), 1e-4) > MEAN_BOX + 0.3


@pytest.mark.parametrize("ridge", [1e-4, 1e-2])
def test_the_floor_a_map_without_information_gives_the_mean_box(ridge: float):
    train, test = (np.random.default_rng(s).random((n, GRID**2)) for s, n in ((2, 2000), (3, 500)))
    assert abs(learned(train, test, ridge) - MEAN_BOX) < MARGIN


def test_the_floor_another_images_mask_gives_the_mean_box():
    ids = [str(i) for i in range(2000)]
    train = box_mask(TRAIN, GRID)[partners(ids, 0)]
    test = box_mask(TEST, GRID)[partners(ids[:500], 0)]
    assert abs(learned(train, test, 1e-4) - MEAN_BOX) < MARGIN
