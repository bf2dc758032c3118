"""Every way to get a box, against answers that are known."""

from itertools import pairwise, product

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sensloc.boxes import Boxes, iou, largest, tidy
from sensloc.comparison.fit import class_sums
from sensloc.methods.constant import ClassBox, ConstantBox, centre_mean, class_means, tuned
from sensloc.methods.least_squares import QUANTUM, NormalEquations, quantise
from sensloc.methods.linear import (
    LinearBox,
    choose_factors,
    choose_ridge,
    features,
    ridge_candidates,
    size_candidates,
    targets,
)
from sensloc.rows import complete, true_boxes, vectors
from sensloc.scoring.corloc import count_correct
from sensloc.store import tables

GRID = 14


def table(maps: np.ndarray, boxes: list[Boxes], scale: object = None) -> pa.Table:
    """What the methods read of the sensitivity table."""
    scale = np.ones(len(maps)) if scale is None else scale
    return pa.table(
        {
            "map": tables.fixed(np.asarray(maps, np.float16), pa.float16()),
            "map_scale": pa.array(np.asarray(scale, np.float32)),
            "boxes": pa.array([np.asarray(b).tolist() for b in boxes], pa.list_(tables.BOX)),
        }
    )


def random_boxes(n: int, seed: int = 0) -> list[Boxes]:
    """One box per image, a fifth of the side at least, as float32 holds it."""
    rng = np.random.default_rng(seed)
    size = rng.uniform(0.2, 1, (n, 2))
    corner = rng.random((n, 2)) * (1 - size)
    boxes = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
    return list(boxes.astype(np.float64)[:, None])


def masks(boxes: list[Boxes]) -> np.ndarray:
    """Perfect maps: the share of each cell that the box covers. [n, G * G]."""
    edges = np.linspace(0, 1, GRID + 1)
    made = []
    for ((x0, y0, x1, y1),) in boxes:
        across, down = (
            np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None) * GRID
            for low, high in ((x0, x1), (y0, y1))
        )
        made.append(np.outer(down, across).ravel())
    return np.array(made)


def corloc(boxes: Boxes, rows: pa.Table, threshold: float = 0.5) -> float:
    """In percent."""
    return 100 * count_correct(boxes, true_boxes(rows), threshold) / len(rows)


# ------------------------------------------------------------------------------- features

MAP = [0.0, 0.25, 0.5, 1.0]
BOX = [np.array([[0, 0, 1, 1]])]


@pytest.mark.parametrize(
    ("normalise", "divisor"),
    [("l2", 1.3125**0.5), ("sum", 1.75), ("max", 1.0)],
)
def test_every_normalisation_by_hand(normalise: str, divisor: float):
    found = features(table(np.array([MAP, np.zeros(4)]), BOX * 2, [0.375, 0.0]), normalise)
    assert np.allclose(found, [np.array(MAP) / divisor, np.zeros(4)], atol=QUANTUM / 2)
    assert np.array_equal(found, quantise(found))


@pytest.mark.parametrize("normalise", ["l2", "sum", "max"])
def test_only_the_shape_of_a_map_counts(normalise: str):
    maps = np.random.default_rng(0).random((5, 16)).astype(np.float16)
    plain = features(table(maps, BOX * 5), normalise)
    assert np.array_equal(features(table(maps / 4, BOX * 5), normalise), plain)
    assert np.array_equal(features(table(maps, BOX * 5, range(5)), normalise), plain)


@pytest.mark.parametrize("normalise", ["l2", "sum", "max"])
def test_no_rows_have_no_features(normalise: str):
    rows = table(np.ones((3, 4)), BOX * 3)
    for empty in (rows.slice(0, 0), rows.filter(pc.greater(rows["map_scale"], 9))):
        assert features(empty, normalise).shape == (0, 4)
        assert targets(empty).shape == (0, 4)
        assert true_boxes(empty) == []


def test_a_column_is_read_whole_from_any_part_of_a_table():
    maps = np.arange(24.0).reshape(6, 4)
    rows = table(maps, BOX * 6)
    chunked = pa.concat_tables([rows.slice(0, 2), rows.slice(2, 1), rows.slice(3)])
    for one in (rows, chunked):
        assert np.array_equal(vectors(one, "map"), maps)
        assert np.array_equal(vectors(one.slice(1, 3), "map"), maps[1:4])
        assert np.array_equal(vectors(one.take([5, 0]), "map"), maps[[5, 0]])


def test_a_missing_map_is_refused():
    rows = pa.table({"map": pa.array([[1.0, 2.0], None], pa.list_(pa.float16(), 2))})
    with pytest.raises(ValueError, match="column map has 1 nulls"):
        vectors(rows, "map")


def two_columns(n: int = 5) -> pa.Table:
    """A second map, of another size and another scale."""
    rng = np.random.default_rng(1)
    maps = tables.fixed(9 * rng.random((n, 6)).astype(np.float16), pa.float16())
    return table(rng.random((n, 4)), BOX * n).append_column("other", maps)


@pytest.mark.parametrize("normalise", ["l2", "sum", "max"])
def test_the_features_of_two_columns_stand_side_by_side(normalise: str):
    rows = two_columns()
    both = features(rows, normalise, ("map", "other"))
    assert both.shape == (5, 10)
    assert np.array_equal(both[:, :4], features(rows, normalise))
    assert np.array_equal(both[:, 4:], features(rows, normalise, ("other",)))
    assert np.array_equal(features(rows, normalise, ("other", "map")), np.roll(both, 6, axis=1))


def test_a_linear_map_reads_its_own_columns():
    rows = two_columns()
    linear = NormalEquations.from_batch(np.eye(10, 6), np.eye(10, 4)).solve(1.0)
    inputs = features(rows, "sum", ("other",))
    found = LinearBox(linear, "sum", columns=("other",)).predict(rows)
    assert np.allclose(found, tidy(linear.predict(inputs)))


def test_rows_with_a_null_in_a_column_that_is_read_are_left_out():
    rows = pa.table({"a": [1, None, 3, None], "b": ["x", "y", None, None], "c": [None] * 4})
    kept = [((), 4), (("a",), 2), (("b",), 2), (("a", "b"), 1), (("c",), 0), (("a", "c"), 0)]
    for names, n in kept:
        assert len(complete(rows, names)) == n
        assert complete(rows, names).schema == rows.schema
    assert complete(rows, ("a", "b")).to_pylist() == [{"a": 1, "b": "x", "c": None}]


def test_the_target_is_the_largest_box():
    boxes = [
        np.array([[0, 0, 0.25, 0.25], [0.25, 0.25, 1, 1], [0, 0, 0.5, 0.5]]),
        np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]),  # the first of equals
    ]
    rows = table(np.ones((2, 4)), boxes)
    assert np.array_equal(targets(rows), [[0.25, 0.25, 1, 1], [0, 0, 0.5, 0.5]])
    assert all(np.array_equal(a, b) for a, b in zip(true_boxes(rows), boxes, strict=True))


def test_targets_are_on_the_exact_grid():
    rows = table(np.ones((50, 4)), random_boxes(50))
    found = targets(rows)
    assert np.array_equal(found, quantise(found))
    assert np.abs(found - [largest(b) for b in true_boxes(rows)]).max() <= QUANTUM / 2


# ------------------------------------------------------------------------------- constant boxes


def test_a_constant_box_is_the_same_for_every_row():
    box = (0.1, 0.2, 0.6, 0.9)
    assert np.array_equal(ConstantBox(box).predict(table(np.ones((3, 4)), BOX * 3)), [box] * 3)


def test_the_centred_box_of_mean_size_by_hand():
    boxes = np.array([[0, 0, 0.5, 1], [0.25, 0.5, 1, 0.75]])
    made = centre_mean(boxes.mean(0))
    assert made.box == pytest.approx((0.1875, 0.1875, 0.8125, 0.8125))
    assert all(type(value) is float for value in made.box)


# wnid -> images, and the sum of their boxes; the mean of all is 0.1, 0.1, 0.6, 0.7
SUMS = {
    "cat": (1, np.array([0.0, 0.0, 0.4, 0.4])),
    "dog": (3, np.array([0.4, 0.4, 2.0, 2.4])),
}


@pytest.mark.parametrize(
    ("shrinkage", "cat"),
    [
        (0.0, [0, 0, 0.4, 0.4]),
        (1.0, [0.05, 0.05, 0.5, 0.55]),
        (3.0, [0.075, 0.075, 0.55, 0.625]),
        (1e12, [0.1, 0.1, 0.6, 0.7]),
        (np.inf, [0.1, 0.1, 0.6, 0.7]),
    ],
)
def test_the_mean_box_of_a_class_by_hand(shrinkage: float, cat: list[float]):
    """An unknown class has the mean box of all."""
    made = class_means(SUMS, shrinkage)
    found = made.predict(pa.table({"wnid": ["fish", "cat", "dog", "cat"]}))
    assert np.allclose(found[0], [0.1, 0.1, 0.6, 0.7])
    assert np.allclose(found[[1, 3]], cat)
    share = 3 / (3 + shrinkage)  # of the three dogs, beside the mean's images
    dog = share * SUMS["dog"][1] / 3 + (1 - share) * found[0]
    assert np.allclose(found[2], dog)


def test_a_box_per_class():
    made = ClassBox({"a": (0, 0, 0.5, 0.5)}, (0.0, 0.0, 1.0, 1.0))
    found = made.predict(pa.table({"wnid": ["b", "a"]}))
    assert np.array_equal(found, [[0, 0, 1, 1], [0, 0, 0.5, 0.5]])
    assert made.predict(pa.table({"wnid": pa.array([], pa.string())})).shape == (0, 4)


def test_the_class_boxes_are_the_same_however_the_images_are_grouped():
    wnids = [f"n{i}" for i in np.random.default_rng(0).integers(0, 5, 60)]
    rows = table(np.ones((60, 4)), random_boxes(60)).append_column("wnid", pa.array(wnids))
    made = []
    for cuts in ([0, 60], [0, 7, 8, 8, 40, 60], [30, 60, 0, 30]):
        sums: dict[str, tuple[int, Boxes]] = {}
        for start, end in pairwise(cuts):
            for wnid, (n, total) in class_sums(rows.slice(start, max(end - start, 0))).items():
                images, before = sums.get(wnid, (0, np.zeros(4)))
                sums[wnid] = (images + n, before + total)
        made.append(class_means(sums, 2.0))
    assert made[1:] == made[:1] * 2
    mine = targets(rows)[np.array(wnids) == "n3"]
    assert sums["n3"][0] == len(mine)
    assert np.array_equal(sums["n3"][1], mine.sum(0))


def some_sets() -> dict[str, list[Boxes]]:
    rng = np.random.default_rng(0)
    near = [np.clip(b + rng.normal(0, 0.03, b.shape), 0, 1) for b in random_boxes(1) * 80]
    pairs = zip(random_boxes(80, 3), random_boxes(80, 4), strict=True)
    return {
        "anywhere": random_boxes(80),
        "one place": near,
        "several boxes": [np.concatenate(pair) for pair in pairs],
        "one image": random_boxes(1, 5),
        "a corner": [np.array([[0.0, 0.0, 0.2, 0.2]])] * 20,
    }


@pytest.mark.parametrize("name", some_sets())
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_the_tuned_box_is_the_best_of_all_that_one_would_try(name: str, threshold: float):
    boxes = some_sets()[name]
    rows = table(np.ones((len(boxes), 4)), boxes)
    found = corloc(tuned(boxes, threshold).predict(rows), rows, threshold)
    means = np.mean([largest(b) for b in boxes], axis=0)
    sizes, centres = np.linspace(0.2, 1, 9), (0.4, 0.5, 0.6)
    grid = [
        (max(x - w / 2, 0), max(y - h / 2, 0), min(x + w / 2, 1), min(y + h / 2, 1))
        for x, y, w, h in product(centres, centres, sizes, sizes)
    ]
    for box in (means, *grid):
        assert found >= corloc(np.tile(box, (len(rows), 1)), rows, threshold), box


@pytest.mark.parametrize(
    "box",
    [(0.1, 0.2, 0.6, 0.9), (0.0, 0.0, 1.0, 1.0), (0.3, 0.35, 0.7, 0.6), (0.6, 0.6, 0.95, 0.95)],
)
def test_the_tuned_box_finds_a_planted_one(box: tuple[float, ...]):
    planted = [np.array([box])] * 50
    found = tuned(planted, 0.5)
    assert (iou(found.predict(range(50)), np.array(box)) >= 0.9).all()
    assert found == tuned(planted, 0.5)


def test_the_tuned_box_does_not_depend_on_the_order_of_the_images():
    boxes = random_boxes(60, 2)
    assert tuned(boxes, 0.5) == tuned(boxes[::-1], 0.5)


# ------------------------------------------------------------------------------- the linear map


def fitted(rows: pa.Table, ridge: float = 1e-4) -> LinearBox:
    sums = NormalEquations.from_batch(features(rows, "l2"), targets(rows))
    return LinearBox(sums.solve(ridge), "l2")


def test_perfect_maps_give_the_boxes():
    """Where the map says everything, the method must be far better than any constant box."""
    train, test = (table(masks(b), b) for b in (random_boxes(2000), random_boxes(500, 1)))
    learned = corloc(fitted(train).predict(test), test)
    constant = corloc(tuned(true_boxes(train), 0.5).predict(test), test)
    shuffled = table(masks(random_boxes(500, 2)), true_boxes(test))
    assert learned > 75
    assert learned > constant + 30
    assert corloc(fitted(train).predict(shuffled), shuffled) < constant


def test_a_map_that_is_linear_in_the_box_is_solved_exactly():
    boxes = random_boxes(200)
    corners = np.concatenate(boxes)
    maps = quantise(np.concatenate([corners, 1 - corners], axis=1))
    linear = NormalEquations.from_batch(maps, quantise(corners)).solve(0.0)
    assert np.allclose(linear.predict(maps), corners, atol=QUANTUM)


def test_at_an_infinite_ridge_every_box_is_the_mean_box():
    boxes = random_boxes(256)
    rows = table(masks(boxes), boxes)
    mean = targets(rows).mean(0)
    assert np.array_equal(fitted(rows, np.inf).predict(rows), np.tile(mean, (256, 1)))
    assert np.allclose(fitted(rows, 1e12).predict(rows), mean, atol=1e-9)


def test_boxes_are_ordered_and_inside_whatever_the_map_says():
    linear = NormalEquations.from_batch(np.eye(4), np.eye(4)).solve(1.0)
    linear.coef_ = np.array([[9.0, -9, 0, 0], [0, 0, 5, 0], [-9, 9, 0, 0], [0, 0, 0, 5]])
    maps = np.random.default_rng(0).random((50, 4))
    found = LinearBox(linear, "max", (2.0, 3.0)).predict(table(maps, BOX * 50))
    assert ((found >= 0) & (found <= 1)).all()
    assert (found[:, :2] <= found[:, 2:]).all()


def test_factors_of_one_change_nothing_and_others_resize_about_the_centre():
    corners = np.tile([0.25, 0.375, 0.75, 0.625], (2, 1))
    linear = NormalEquations.from_batch(np.zeros((2, 4)), corners).solve(np.inf)
    rows = table(np.ones((3, 4)), BOX * 3)
    plain = LinearBox(linear, "l2").predict(rows)
    assert np.array_equal(LinearBox(linear, "l2", (1.0, 1.0)).predict(rows), plain)
    resized = LinearBox(linear, "l2", (1.5, 0.5)).predict(rows)
    assert np.allclose(resized, [[0.125, 0.4375, 0.875, 0.5625]] * 3)


def test_candidates_are_what_the_methods_would_predict():
    boxes = random_boxes(60)
    rows = table(masks(boxes), boxes)
    inputs = features(rows, "l2")
    path = NormalEquations.from_batch(inputs, targets(rows)).path([1e-4, 1e-1, 10.0])
    by_ridge = ridge_candidates(path, inputs)
    for linear, candidate in zip(path, by_ridge, strict=True):
        assert np.allclose(LinearBox(linear, "l2").predict(rows), candidate, atol=1e-14)
    sizes = (0.8, 1.0, 1.3)
    by_size = size_candidates(path[0], sizes, inputs)
    assert by_size.shape == (9, 60, 4)
    for factors, candidate in zip(product(sizes, sizes), by_size, strict=True):
        assert np.array_equal(LinearBox(path[0], "l2", factors).predict(rows), candidate)


@pytest.mark.parametrize(
    ("correct", "best"), [([1, 5, 2], 1), ([5, 5, 2], 1), ([5, 2, 5], 2), ([0, 0, 0], 2)]
)
def test_among_equal_ridges_the_largest_is_taken(correct: list[int], best: int):
    assert choose_ridge([1e-3, 1e-2, 1e-1], np.array(correct)) == best
    backwards = choose_ridge([1e-1, 1e-2, 1e-3], np.array(correct[::-1]))
    assert backwards == 2 - best


@pytest.mark.parametrize(
    ("correct", "best"),
    [
        ([0, 0, 0, 0, 0, 0, 0, 0, 0], (1.0, 1.0)),
        ([9, 9, 9, 9, 9, 9, 9, 9, 9], (1.0, 1.0)),
        ([9, 9, 9, 9, 8, 9, 9, 9, 9], (1.0, 1.25)),  # 1.25 is nearer to 1 than 0.5 is
        ([1, 1, 1, 1, 1, 1, 1, 1, 2], (1.25, 1.25)),
        ([7, 7, 0, 0, 0, 0, 0, 0, 0], (0.5, 1.0)),
    ],
)
def test_among_equal_factors_those_nearest_to_one_are_taken(
    correct: list[int], best: tuple[float, float]
):
    assert choose_factors((0.5, 1.0, 1.25), np.array(correct)) == best


def test_calibration_is_never_worse_where_it_is_chosen():
    boxes = random_boxes(300)
    noisy = masks(boxes) * np.random.default_rng(0).random((300, GRID**2))
    rows = table(noisy, boxes)
    linear, sizes = fitted(rows, 1.0).linear, (0.8, 1.0, 1.2, 1.5)
    candidates = size_candidates(linear, sizes, features(rows, "l2"))
    counts = count_correct(candidates, true_boxes(rows), 0.5)
    factors = choose_factors(sizes, counts)
    calibrated = LinearBox(linear, "l2", factors).predict(rows)
    assert count_correct(calibrated, true_boxes(rows), 0.5) == counts.max()
    assert corloc(calibrated, rows) >= corloc(LinearBox(linear, "l2").predict(rows), rows)
    assert factors != (1.0, 1.0)  # least squares shrinks boxes
