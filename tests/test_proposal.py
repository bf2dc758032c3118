"""Each way to take a box among proposals, on three images whose answers are known."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensloc.boxes import iou
from sensloc.methods.proposal import (
    BestProposal,
    ChosenProposal,
    FirstProposal,
    RandomProposal,
    proposed,
)
from sensloc.rows import true_boxes
from sensloc.scoring.corloc import best_iou
from sensloc.store import tables

LEFT, RIGHT, TOP = [0, 0, 0.5, 1], [0.5, 0, 1, 1], [0, 0, 1, 0.5]
WHOLE, SMALL = [0, 0, 1, 1], [0.25, 0.25, 0.5, 0.5]


def table(
    ids: list[str], proposals: list[list[list[float]]], boxes: list[list[list[float]]]
) -> pa.Table:
    """What these methods read."""
    return pa.table(
        {
            "image_id": ids,
            "proposals": pa.array(proposals, pa.list_(tables.BOX)),
            "boxes": pa.array(boxes, pa.list_(tables.BOX)),
        }
    )


@pytest.fixture
def rows() -> pa.Table:
    made = table(
        ["a", "b", "c"],
        [[LEFT, RIGHT, WHOLE], [SMALL], [TOP, WHOLE, SMALL, RIGHT]],
        [[[0.5, 0, 1, 0.9]], [LEFT], [SMALL, [0.5, 0.1, 1, 1]]],
    )
    return made.append_column("mine", pa.array([2, 0, 1]))


def test_the_proposals_as_they_are(rows: pa.Table):
    found = proposed(rows)
    assert [boxes.shape for boxes in found] == [(3, 4), (1, 4), (4, 4)]
    assert np.array_equal(found[2], [TOP, WHOLE, SMALL, RIGHT])


def test_the_first(rows: pa.Table):
    assert np.array_equal(FirstProposal().predict(rows), [LEFT, SMALL, TOP])


def test_the_one_that_a_column_names(rows: pa.Table):
    assert np.array_equal(ChosenProposal("mine").predict(rows), [WHOLE, SMALL, WHOLE])


def test_the_best_for_any_of_the_images_boxes(rows: pa.Table):
    """The third image has SMALL itself; RIGHT is good for its other box, but not as good."""
    assert np.array_equal(BestProposal().predict(rows), [RIGHT, SMALL, SMALL])


def test_any_of_them(rows: pa.Table):
    drawn = np.array([RandomProposal(seed).predict(rows) for seed in range(60)])
    for i, boxes in enumerate(proposed(rows)):
        assert {*map(tuple, drawn[:, i])} == {*map(tuple, boxes)}  # each of them, some time


METHODS = [FirstProposal(), RandomProposal(3), BestProposal(), ChosenProposal("mine")]


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_no_rows_and_some_of_the_rows(rows: pa.Table, method: FirstProposal):
    assert method.predict(rows.slice(0, 0)).shape == (0, 4)
    whole = method.predict(rows)
    assert whole.shape == (3, 4)
    for order in ([2, 0, 1], [1], [2, 2]):
        assert np.array_equal(method.predict(rows.take(order)), whole[order])


def test_the_random_one_is_that_of_id_and_seed():
    ids = [str(i) for i in range(200)]
    squares = [[x / 8, 0, (x + 1) / 8, 1] for x in range(8)]
    rows = table(ids, [squares] * 200, [[WHOLE]] * 200)
    one, again, other = (RandomProposal(seed).predict(rows) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    renamed = table([f"x{i}" for i in ids], [squares] * 200, [[WHOLE]] * 200)
    assert not np.array_equal(RandomProposal(1).predict(renamed), one)
    counts = np.bincount((one[:, 0] * 8).astype(int), minlength=8)
    assert (np.abs(counts - 25) < 4 * (200 * 1 / 8 * 7 / 8) ** 0.5).all()  # binomial


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_none_is_better_than_the_best(seed: int):
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((2, 3, 5, 2, 2)), axis=-2).reshape(2, 3, 5, 4)
    proposals = [list(map(list, b[: rng.integers(1, 6)])) for b in corners[0]]
    rows = table(["a", "b", "c"], proposals, [list(map(list, b[:2])) for b in corners[1]])
    best = best_iou(BestProposal().predict(rows), true_boxes(rows))
    for method in (FirstProposal(), RandomProposal(0)):
        assert (best >= best_iou(method.predict(rows), true_boxes(rows))).all()
    for found, boxes, true in zip(best, proposed(rows), true_boxes(rows), strict=True):
        assert found == iou(boxes[:, None], true[None]).max()
