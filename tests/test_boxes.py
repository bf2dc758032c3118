"""Boxes are unit xyxy with continuous edges; IoU agrees with torchvision."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from sensloc.boxes import BoxError, area, iou, largest, resize, tidy, unit_boxes

LAW = settings(max_examples=50, deadline=None, derandomize=True)

LATTICE = 64


@st.composite
def lattice_boxes(draw: st.DrawFn, least: int = 1) -> np.ndarray:
    """[n, 4] valid boxes whose corners are multiples of 1/64: their areas are exact."""
    edge = st.integers(0, LATTICE)
    side = st.tuples(edge, edge).filter(lambda e: e[0] != e[1]).map(sorted)
    drawn = draw(st.lists(st.tuples(side, side), min_size=least, max_size=6))
    return np.array([(x[0], y[0], x[1], y[1]) for x, y in drawn]).reshape(-1, 4) / LATTICE


UNIT = [0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (UNIT, UNIT, 1),
        ([0, 0, 0.5, 1], UNIT, 0.5),
        ([0, 0, 0.5, 0.5], [0.25, 0.25, 0.75, 0.75], 1 / 7),
        ([0, 0, 0.5, 1], [0.5, 0, 1, 1], 0),
        ([0, 0, 0.25, 0.25], [0.5, 0.5, 1, 1], 0),
        ([0, 0, 0.75, 1], [0.25, 0, 1, 1], 0.5),
        ([0.3, 0.3, 0.3, 0.3], [0.3, 0.3, 0.3, 0.3], 0),
    ],
)
def test_iou_by_hand(a: list[float], b: list[float], expected: float):
    assert iou(np.array(a), np.array(b)) == pytest.approx(expected, abs=1e-15)


@LAW
@given(lattice_boxes(), lattice_boxes())
def test_iou_is_torchvisions(a: np.ndarray, b: np.ndarray):
    theirs = box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    assert np.allclose(iou(a[:, None], b[None]), theirs, rtol=1e-14, atol=0)


@LAW
@given(lattice_boxes(), lattice_boxes())
def test_iou_is_symmetric_a_share_and_one_with_itself(a: np.ndarray, b: np.ndarray):
    ab = iou(a[:, None], b[None])
    assert np.array_equal(ab, iou(b[:, None], a[None]).T)
    assert ((ab >= 0) & (ab <= 1)).all()
    assert (iou(a, a) == 1).all()


sizes = st.floats(1e-3, 1e4)


@LAW
@given(lattice_boxes(), lattice_boxes(), sizes, sizes)
def test_iou_does_not_change_when_an_axis_is_scaled(
    a: np.ndarray, b: np.ndarray, width: float, height: float
):
    scale = np.array([width, height, width, height])
    scaled = iou((a * scale)[:, None], (b * scale)[None])
    assert np.allclose(scaled, iou(a[:, None], b[None]), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("convention", "corners", "width", "height", "expected"),
    [
        ("edges", [0, 0, 500, 375], 500, 375, [0, 0, 1, 1]),  # ILSVRC: 0 to the width
        ("edges", [125, 0, 250, 75], 500, 375, [0.25, 0, 0.5, 0.2]),
        ("inclusive_0", [0, 0, 63, 63], 64, 64, [0, 0, 1, 1]),  # Tiny ImageNet
        ("inclusive_0", [16, 32, 31, 32], 64, 64, [0.25, 0.5, 0.5, 33 / 64]),
        ("inclusive_1", [1, 1, 64, 32], 64, 32, [0, 0, 1, 1]),  # PASCAL VOC
        ("inclusive_1", [17, 5, 17, 8], 64, 32, [0.25, 0.125, 17 / 64, 0.25]),  # one column
        ("xywh", [10, 20, 30, 40], 100, 200, [0.1, 0.1, 0.4, 0.3]),  # COCO
        ("unit", [0.1, 0.2, 0.3, 0.4], 1234, 5, [0.1, 0.2, 0.3, 0.4]),
    ],
)
def test_every_convention_by_hand(convention, corners, width, height, expected):
    unit = unit_boxes([corners, corners], width, height, convention)
    assert unit.dtype == np.float32
    assert np.allclose(unit, [expected, expected], atol=1e-7)


@LAW
@given(lattice_boxes(), st.integers(1, 40), st.integers(1, 40))
def test_all_conventions_tell_of_the_same_box(boxes: np.ndarray, across: int, down: int):
    width, height = across * LATTICE, down * LATTICE
    edges = boxes * [width, height, width, height]
    written = {
        "edges": edges,
        "inclusive_0": edges - np.array([0, 0, 1, 1]),
        "inclusive_1": edges + np.array([1, 1, 0, 0]),
        "xywh": np.concatenate([edges[:, :2], edges[:, 2:] - edges[:, :2]], axis=1),
        "unit": boxes,
    }
    for convention, corners in written.items():
        assert np.array_equal(unit_boxes(corners, width, height, convention), boxes)


def test_an_image_may_have_no_box():
    assert unit_boxes([], 10, 10, "edges").shape == (0, 4)


@pytest.mark.parametrize(
    ("convention", "corners", "reason"),
    [
        ("edges", [5, 5, 5, 9], "no area"),
        ("edges", [5, 5, 9, 4], "no area"),
        ("xywh", [5, 5, 0, 3], "no area"),
        ("xywh", [5, 5, 3, -3], "no area"),
        ("inclusive_0", [5, 5, 4, 9], "no area"),
        ("edges", [0, 0, 101.5, 80], "outside"),
        ("edges", [-1.5, 0, 50, 50], "outside"),
        ("edges", [0, 0, 50, 81.5], "outside"),
        ("unit", [0.0, 0.0, 1.02, 1.0], "outside"),
        ("edges", [-1, 0, 0, 50], "no area"),  # within the tolerance, and nothing of it inside
        ("edges", [math.nan, 0, 5, 5], "not finite"),
        ("edges", [0, 0, math.inf, 5], "not finite"),
        ("xywh", [0, -math.inf, 5, 5], "not finite"),
    ],
)
def test_what_is_no_box_of_the_image_is_refused(convention, corners, reason):
    with pytest.raises(BoxError, match=reason):
        unit_boxes([[0.1, 0.1, 0.5, 0.5], corners], 100, 80, convention)


def test_a_box_that_sticks_out_by_one_pixel_is_clipped():
    assert np.array_equal(unit_boxes([[-1, -1, 101, 81]], 100, 80, "edges"), [UNIT])
    assert np.array_equal(unit_boxes([[0, 0, 64, 64]], 64, 64, "inclusive_0"), [UNIT])


numbers = st.floats(-3, 3)


@LAW
@given(st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=1, max_size=5))
def test_tidy_makes_boxes_and_leaves_boxes(drawn: list[tuple[float, ...]]):
    boxes = np.array(drawn)
    tidied = tidy(boxes)
    assert ((tidied >= 0) & (tidied <= 1)).all()
    assert (tidied[:, :2] <= tidied[:, 2:]).all()
    assert np.array_equal(tidy(tidied), tidied)


@LAW
@given(lattice_boxes())
def test_tidy_orders_the_corners(boxes: np.ndarray):
    assert np.array_equal(tidy(boxes), boxes)
    assert np.array_equal(tidy(boxes[:, [2, 1, 0, 3]]), boxes)
    assert np.array_equal(tidy(boxes[:, [0, 3, 2, 1]]), boxes)


@LAW
@given(lattice_boxes(), st.floats(0.1, 3), st.floats(0.1, 3))
def test_resize_keeps_the_centre_and_scales_the_sides(boxes: np.ndarray, w: float, h: float):
    assert np.array_equal(resize(boxes, (1, 1)), boxes)
    resized = resize(boxes, (w, h))
    assert np.allclose(resized[:, :2] + resized[:, 2:], boxes[:, :2] + boxes[:, 2:])
    sides, before = resized[:, 2:] - resized[:, :2], boxes[:, 2:] - boxes[:, :2]
    assert np.allclose(sides, before * [w, h])
    assert np.allclose(area(resized), area(boxes) * w * h)
    per_box = resize(boxes, np.tile([w, h], (len(boxes), 1)))
    assert np.array_equal(per_box, resized)


@LAW
@given(lattice_boxes())
def test_largest_is_the_first_of_the_largest(boxes: np.ndarray):
    areas = area(boxes).tolist()
    assert np.array_equal(largest(boxes), boxes[areas.index(max(areas))])
