"""The counts behind every table: integers that merge, and one definition of what counts."""

from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensloc.scoring import paired
from sensloc.scoring.accuracy import accuracy, breakdown
from sensloc.scoring.counts import COLUMNS, count, curve, groups, merge, tally
from sensloc.store import tables
from sensloc.store.run import RunDir

LAW = settings(max_examples=30, deadline=None, derandomize=True)

SHARE = st.floats(0, 1, width=32)

ROW = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["a", "b"]),
        "wnid": st.sampled_from(["n1", "n2"]),
        "source": st.sampled_from(["s/a", "s/b"]),
        "iou": st.none() | SHARE,
        "area": st.none() | SHARE,
        "n_boxes": st.integers(1, 3),
        "recognised": st.none() | st.booleans(),
    }
)


def table(rows: list[dict]) -> pa.Table:
    """Predictions: without an area the image cannot be read, without an IoU there is no box."""
    plain = {"class_name": "x", "source": "s/a", "n_boxes": 1, "recognised": True}
    made = []
    for row in rows:
        iou = row["iou"] if row["area"] is not None else None
        judged = {"iou": iou, "iou_largest": iou, "correct": None if iou is None else iou >= 0.5}
        unknown = {} if row["area"] is not None else {"n_boxes": None, "recognised": None}
        made.append({**plain, **row, **judged, **unknown})
    schema = pa.schema([tables.PREDICTIONS.field(name) for name in COLUMNS])
    return pa.Table.from_pylist(made, schema)


@LAW
@given(st.lists(ROW, max_size=30), st.integers(1, 7), st.randoms())
def test_counts_are_a_commutative_monoid(rows: list[dict], step: int, dice) -> None:
    whole = table(rows)
    parts = [count(whole.slice(i, step)) for i in range(0, len(whole), step)]
    dice.shuffle(parts)
    assert merge(parts).equals(count(whole))
    assert reduce(lambda a, b: merge([a, b]), parts, merge([])).equals(count(whole))
    assert tally([whole]).equals(count(whole))


@LAW
@given(st.lists(ROW, max_size=30))
def test_every_way_of_grouping_holds_every_image_once(rows: list[dict]) -> None:
    counts = count(table(rows)).to_pylist()
    whole = {row["method"]: row for row in counts if row["by"] == "all"}
    known = sum(row["area"] is not None for row in rows)
    left_out = sum(row["n_images"] for row in counts if row["by"] == "left out")
    assert sum(row["n_images"] for row in whole.values()) == known == len(rows) - left_out
    for by in ("class", "source", "area", "recognised", "boxes", "iou"):
        for method, over in whole.items():
            mine = [row for row in counts if (row["method"], row["by"]) == (method, by)]
            for number in ("n_images", "n_errors", "n_correct"):
                assert sum(row[number] for row in mine) == over[number]
    assert all(row["n_errors"] + row["n_correct"] <= row["n_images"] for row in counts)


def test_counts_by_hand() -> None:
    rows = [
        {"method": "a", "wnid": "n1", "iou": 0.5, "area": 0.05},
        {"method": "a", "wnid": "n1", "iou": 1.0, "area": 0.1, "n_boxes": 2},
        {"method": "a", "wnid": "n2", "iou": None, "area": 0.3},  # the method found no box: wrong
        {"method": "a", "wnid": "n2", "iou": None, "area": None},  # it cannot be read: left out
    ]
    counts = tally([table(rows)])

    def of(by: str) -> dict[str, tuple[int, int, int]]:
        return {
            name: (row["n_images"], row["n_errors"], row["n_correct"])
            for name, row in groups(counts, by)["a"].items()
        }

    assert of("all") == {"all": (3, 1, 2)}
    assert of("class") == {"n1": (2, 0, 2), "n2": (1, 1, 0)}
    assert of("area") == {
        "under 10 %": (1, 0, 1),
        "10 to 25 %": (1, 0, 1),
        "25 to 50 %": (1, 1, 0),
    }
    assert of("boxes") == {"single": (2, 1, 1), "several": (1, 0, 1)}
    assert of("threshold") == {"0.3": (3, 1, 2), "0.5": (3, 1, 2), "0.7": (3, 1, 1)}
    assert of("iou") == {"50": (1, 0, 1), "100": (1, 0, 1), "none": (1, 1, 0)}
    assert of("left out") == {"all": (1, 1, 0)}
    share = curve(counts, "a")
    assert share[[0, 50, 51, 100]] == pytest.approx([200 / 3, 200 / 3, 100 / 3, 100 / 3])


def test_a_class_of_two_names_is_one_class() -> None:
    rows = [
        {"method": "a", "wnid": "n1", "class_name": name, "iou": 0.7, "area": 0.2}
        for name in ("cat", "tabby", None)
    ]
    assert groups(tally([table(rows)]), "class")["a"]["n1"]["n_images"] == 3


def test_the_counts_are_those_of_the_methods_that_are_compared(small_run: RunDir) -> None:
    rows = pq.read_table(small_run.path("predictions"))
    methods = list(dict.fromkeys(rows["method"].to_pylist()))
    judged = paired.Judged.from_table(rows, methods)
    counts = tally([rows.slice(i, 37) for i in range(0, len(rows), 37)])
    assert counts.equals(judged.counts())
    by_method = groups(counts, "all")
    for row in accuracy(judged, 100, 0).to_pylist():
        assert row["n_correct"] == by_method[row["method"]]["all"]["n_correct"]
    said = {
        (r["method"], r["group"]): (r["n_images"], r["n_correct"])
        for r in breakdown(judged, 100, 0).to_pylist()
    }
    for method, sizes in groups(counts, "area").items():
        for name, row in sizes.items():
            assert said[method, name] == (row["n_images"], row["n_correct"])
    assert np.all(np.diff(curve(counts, methods[0])) <= 0)
