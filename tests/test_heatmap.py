"""Boxes from heat maps, against maps whose boxes are known."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from sensloc.methods.threshold import (
    QUANTILES,
    THRESHOLDS,
    MassBox,
    ThresholdBox,
    choose,
    heatmaps,
    largest_component,
    mass_candidates,
    threshold_candidates,
)
from sensloc.scoring.regions import upsample
from sensloc.store import tables

WHOLE = [0, 0, 1, 1]


def table(maps: np.ndarray, value_type: pa.DataType | None = None) -> pa.Table:
    """A table of one column "cam" of maps [n, h, h]."""
    flat = np.asarray(maps, np.float64).reshape(len(maps), -1)
    return pa.table({"cam": tables.fixed(flat, value_type or pa.float64())})


def painted(side: int, *rectangles: tuple[int, int, int, int, float]) -> np.ndarray:
    """A map of zeros with rectangles (x0, y0, x1, y1, value) painted over one another."""
    heat = np.zeros((side, side))
    for x0, y0, x1, y1, value in rectangles:
        heat[y0:y1, x0:x1] = value
    return heat


def random_maps(n: int, side: int, seed: int = 0) -> np.ndarray:
    """Maps with few and with many components, in float16 steps: [n, side, side]."""
    rng = np.random.default_rng(seed)
    return (rng.random((n, side, side)) ** rng.uniform(0.3, 5, (n, 1, 1))).astype(np.float16)


# ------------------------------------------------------------------------------- the maps


def test_maps_are_stretched_to_the_unit_range_and_flat_ones_are_zero():
    found = heatmaps(table(np.array([[[0.5, 0.25], [0.75, 0.5]], [[0.5] * 2] * 2])), "cam")
    assert found.dtype == np.float64
    assert found.tolist() == [[[0.5, 0], [1, 0.5]], [[0, 0], [0, 0]]]


def test_maps_of_a_stored_table_are_float16():
    maps = random_maps(3, 4)
    assert np.array_equal(heatmaps(table(maps, pa.float16()), "cam"), heatmaps(table(maps), "cam"))


def test_a_map_that_is_not_square_is_refused():
    with pytest.raises(ValueError, match="no square"):
        heatmaps(table(np.zeros((2, 2, 3))), "cam")


@pytest.mark.parametrize(
    ("shape", "side"), [((7, 7), 56), ((14, 14), 224), ((5, 9), 13), ((8, 8), 8), ((20, 6), 7)]
)
def test_upsample_is_torch_interpolate(shape: tuple[int, int], side: int):
    maps = np.random.default_rng(0).random((3, *shape))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(maps)[:, None], (side, side), mode="bilinear", align_corners=False
    )
    assert np.allclose(upsample(maps, side), expected[:, 0].numpy(), rtol=0, atol=1e-9)


# ------------------------------------------------------------------------------- components


@pytest.mark.parametrize(
    ("heat", "box"),
    [
        (painted(8, (2, 3, 5, 7, 1)), [2, 3, 5, 7]),
        (painted(8, (0, 0, 2, 3, 1)), [0, 0, 2, 3]),
        (painted(8, (7, 7, 8, 8, 1)), [7, 7, 8, 8]),
        (painted(8, (0, 0, 8, 8, 1), (1, 1, 7, 7, 0)), [0, 0, 8, 8]),
        (painted(8, (0, 0, 2, 2, 1), (4, 4, 7, 7, 1)), [4, 4, 7, 7]),
        (painted(8, (0, 0, 2, 2, 1), (2, 2, 3, 3, 1), (4, 4, 6, 6, 1)), [0, 0, 3, 3]),
        (painted(8, (5, 0, 7, 2, 1), (0, 4, 2, 6, 1)), [5, 0, 7, 2]),
        (painted(8), [0, 0, 8, 8]),
    ],
    ids=["one", "corner", "last pixel", "border", "two", "diagonal touch", "equals", "flat"],
)
def test_the_largest_component_by_hand(heat: np.ndarray, box: list[int]):
    assert largest_component(heat, [0.5]).tolist() == [[edge / 8 for edge in box]]
    x0, y0, x1, y1 = box
    if box != [5, 0, 7, 2]:  # of equals, the first in reading order is another one there
        assert largest_component(heat.T, [0.5]).tolist() == [[y0 / 8, x0 / 8, y1 / 8, x1 / 8]]


def test_reading_order_does_not_depend_on_the_memory_order():
    heat = painted(8, (5, 0, 7, 2, 1), (0, 4, 2, 6, 1))
    assert np.array_equal(
        largest_component(np.asfortranarray(heat), [0.5]), largest_component(heat, [0.5])
    )


def test_components_count_by_pixels_not_by_box():
    ring = painted(8, (0, 0, 4, 4, 1), (1, 1, 4, 4, 0))
    heat = np.maximum(ring, painted(8, (5, 5, 8, 8, 1)))
    assert largest_component(heat, [0.5]).tolist() == [[5 / 8, 5 / 8, 1, 1]]


def test_a_pixel_on_the_threshold_is_in():
    heat = painted(4, (0, 0, 3, 3, 0.25), (1, 1, 2, 2, 1))
    found = largest_component(heat, [0.25, np.nextafter(0.25, 1), 1.0])
    assert (4 * found).tolist() == [[0, 0, 3, 3], [1, 1, 2, 2], [1, 1, 2, 2]]


def test_boxes_of_a_single_hill_are_nested():
    x = np.linspace(-1, 1, 31)
    hill = np.exp(-((x - 0.2) ** 2) - 3 * (x[:, None] + 0.1) ** 2)
    hill = (hill - hill.min()) / (hill.max() - hill.min())
    boxes = largest_component(hill, THRESHOLDS)
    assert (np.diff(boxes[:, :2], axis=0) >= 0).all()
    assert (np.diff(boxes[:, 2:], axis=0) <= 0).all()


def test_a_threshold_is_of_the_upsampled_map():
    lone = painted(7, (3, 3, 4, 4, 1))
    found = threshold_candidates("cam", [0.95, 0.5], table(lone[None]))
    assert np.array_equal(found[:, 0], np.array([[27, 27, 29, 29], [24, 24, 32, 32]]) / 56)


# ------------------------------------------------------------------------------- mass


@pytest.mark.parametrize("q", [0.005, 0.1, 0.2])
def test_a_uniform_map_leaves_out_the_quantile_itself(q: float):
    found = mass_candidates("cam", [q], table(np.full((1, 5, 5), 0.3)))
    assert np.allclose(found, [[[q, q, 1 - q, 1 - q]]], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("heat", "box"),
    [
        ([[1, 3], [0, 0]], [0.5, 0.125, 5 / 6, 0.375]),
        ([[0, 0], [0, 0.5]], [0.625, 0.625, 0.875, 0.875]),
        ([[1, 0], [0, 1]], [0.25, 0.25, 0.75, 0.75]),
        ([[0, 0], [0, 0]], WHOLE),
    ],
    ids=["by hand", "one cell", "diagonal", "no mass"],
)
def test_the_central_mass_by_hand(heat: list[list[float]], box: list[float]):
    found = MassBox("cam", 0.25).predict(table(np.array([heat])))
    assert np.allclose(found, [box], rtol=0, atol=1e-12)


def test_central_masses_are_boxes_and_nested():
    boxes = mass_candidates("cam", QUANTILES, table(random_maps(20, 9)))
    assert (boxes[..., :2] >= 0).all()
    assert (boxes[..., :2] < boxes[..., 2:]).all()
    assert (boxes[..., 2:] <= 1).all()
    assert (np.diff(boxes[..., :2], axis=0) >= 0).all()
    assert (np.diff(boxes[..., 2:], axis=0) <= 0).all()


# ------------------------------------------------------------------------------- methods


@pytest.mark.parametrize(
    ("candidates", "method", "values"),
    [(threshold_candidates, ThresholdBox, THRESHOLDS), (mass_candidates, MassBox, QUANTILES)],
)
def test_candidates_are_the_methods_and_a_batch_is_its_images(candidates, method, values):
    rows = table(np.concatenate([random_maps(5, 7), np.zeros((1, 7, 7))]))
    boxes = candidates("cam", values, rows)
    assert boxes.shape == (len(values), 6, 4)
    for value, expected in zip(values, boxes, strict=True):
        assert np.array_equal(method("cam", value).predict(rows), expected)
    for i in range(6):
        assert np.array_equal(candidates("cam", values, rows.slice(i, 1))[:, 0], boxes[:, i])
    assert boxes[:, 5].tolist() == [WHOLE] * len(values)
    assert candidates("cam", values, rows.slice(0, 0)).shape == (len(values), 0, 4)


def test_the_grids():
    assert np.allclose(THRESHOLDS, np.arange(0.05, 0.96, 0.025))
    assert np.allclose(QUANTILES, np.arange(0.005, 0.2001, 0.005))


@pytest.mark.parametrize(
    ("correct", "value"),
    [([1, 3, 2, 0], 20), ([3, 0, 3, 3], 30), ([5, 1, 1, 5], 10), ([0, 0, 0, 0], 20)],
)
def test_the_middle_of_the_best_is_chosen(correct: list[int], value: float):
    assert choose([10, 20, 30, 40], np.array(correct)) == value
