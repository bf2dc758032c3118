"""The box of highest soft IoU: the best of all boxes of the grid, known by hand on masks."""

from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sensloc.methods.soft_iou import (
    GRID,
    SoftIoUBox,
    _soft_ious,
    _spans,
    best_box,
    choose,
    evidence_of,
    fine,
    placed,
)
from sensloc.store import tables


def by_trying_all(evidence: np.ndarray) -> float:
    """The highest soft IoU of all boxes of the grid."""
    grid, total = len(evidence), evidence.sum()
    best = 0.0
    for top, bottom in combinations(range(grid + 1), 2):
        for left, right in combinations(range(grid + 1), 2):
            inside = evidence[top:bottom, left:right].sum()
            area = (bottom - top) * (right - left)
            best = max(best, inside / (area + total - inside))
    return best


@given(st.integers(0, 1000), st.integers(2, 6))
def test_it_is_the_best_of_all_boxes(seed: int, grid: int) -> None:
    evidence = np.random.default_rng(seed).random((grid, grid)) ** 3
    x0, y0, x1, y1 = np.rint(best_box(evidence) * grid).astype(int)
    inside = evidence[y0:y1, x0:x1].sum()
    score = inside / ((x1 - x0) * (y1 - y0) + evidence.sum() - inside)
    assert score == pytest.approx(by_trying_all(evidence))


@given(st.integers(0, 1000), st.integers(1, GRID), st.sampled_from([0.1, 1.0, 8.0]))
def test_it_is_the_first_of_the_best_of_all_boxes(seed: int, grid: int, power: float) -> None:
    """To the bit, though few of the boxes are looked at; with many equals, in rounded evidence."""
    evidence = np.rint(4 * np.random.default_rng(seed).random((grid, grid)) ** power) / 4
    integral = np.zeros((grid + 1, grid + 1))
    integral[1:, 1:] = evidence.cumsum(0).cumsum(1) / grid**2
    spans = _spans(grid)
    y, x = divmod(int(_soft_ious(integral, spans, spans).argmax()), spans.shape[1])
    (top, bottom), (left, right) = spans[:, y], spans[:, x]
    np.testing.assert_array_equal(best_box(evidence), np.array([left, top, right, bottom]) / grid)


def test_the_box_of_a_mask_is_the_mask() -> None:
    mask = np.zeros((GRID, GRID))
    mask[7:21, 14:28] = 1
    np.testing.assert_allclose(best_box(mask), [0.5, 0.25, 1.0, 0.75])


def test_a_map_of_nothing_and_one_of_everything_have_a_box() -> None:
    for share in (0.0, 1.0):
        box = best_box(np.full((4, 4), share))
        assert (box[:2] < box[2:]).all()
    np.testing.assert_array_equal(best_box(np.ones((4, 4))), [0, 0, 1, 1])


def test_a_coarse_map_is_interpolated_as_torch_does() -> None:
    maps = np.random.default_rng(0).random((3, 14 * 14))
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(maps.reshape(3, 1, 14, 14)), (GRID, GRID), mode="bilinear"
    )
    np.testing.assert_allclose(fine(maps), theirs[:, 0].numpy(), atol=1e-12)
    assert fine(np.zeros((2, 30 * 30))).shape == (2, 30, 30)
    with pytest.raises(ValueError, match="no square"):
        fine(np.zeros((1, 12)))


def test_evidence_by_hand() -> None:
    shares = np.array([0.0, 0.5, 1.0])
    np.testing.assert_allclose(evidence_of(shares, 8, 1), 1 / (1 + np.exp([4, 0, -4])))
    np.testing.assert_allclose(evidence_of(shares, 8, 2)[1], 0.25)


def test_a_box_of_a_part_is_where_the_part_is() -> None:
    boxes, regions = np.array([[0, 0.5, 1, 1]]), np.array([[0.2, 0.4, 0.6, 0.8]])
    np.testing.assert_allclose(placed(boxes, regions), [[0.2, 0.6, 0.6, 0.8]])
    mask = np.zeros((1, GRID, GRID), np.float32)
    mask[:, GRID // 2 :] = 1
    rows = pa.table(
        {
            "map_a": tables.fixed(mask.reshape(1, -1), pa.float32()),
            "map_a_region": tables.fixed(regions.astype(np.float32), pa.float32()),
        }
    )
    method = SoftIoUBox("map_a", 20.0, 1.0, part=True)
    assert method.reads == ("map_a", "map_a_region")
    np.testing.assert_allclose(method.predict(rows), [[0.2, 0.6, 0.6, 0.8]], atol=1e-6)


def test_of_equals_the_middle_one_is_chosen() -> None:
    pairs = [(4.0, 1.0), (8.0, 1.0), (16.0, 1.0)]
    assert choose(pairs, [5, 5, 5]) == (8.0, 1.0)
    assert choose(pairs, [5, 5, 6]) == (16.0, 1.0)
