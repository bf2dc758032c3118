"""Every method is judged on the same images, and a difference is claimed only where it is one."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensloc.scoring.accuracy import ACCURACY, BREAKDOWN, accuracy, breakdown
from sensloc.scoring.corloc import share
from sensloc.scoring.counts import AREA_GROUPS, STEPS, curve
from sensloc.scoring.paired import (
    DIFFERENCES,
    Difference,
    Judged,
    all_differences,
    difference,
    differences,
)

LAW = settings(max_examples=50, deadline=None, derandomize=True)

KINDS = {
    **dict.fromkeys(["image_id", "wnid", "class_name", "source", "method", "error"], pa.string()),
    **dict.fromkeys(["iou", "iou_largest", "area"], pa.float32()),
    "n_boxes": pa.int32(),
    "recognised": pa.bool_(),
}
ROWS = pa.schema(list(KINDS.items()))

IMAGES: list[dict[str, Any]] = [
    {"wnid": "n1", "source": "s/a", "n_boxes": 1, "area": 0.05, "recognised": True},
    {"wnid": "n1", "source": "s/a", "n_boxes": 2, "area": 0.1, "recognised": True},
    {"wnid": "n1", "source": "s/b", "n_boxes": 1, "area": 0.3, "recognised": False},
    {"wnid": "n2", "source": "s/b", "n_boxes": 3, "area": 0.5, "recognised": True},
]
"""Four images, of which the methods below have errors for some."""

IOUS = {"a": [0.2, 0.6, 0.5, 0.9], "b": [0.35, None, 0.1, 0.7], "c": [None, None, 0.75, 0.49]}


def rows(ious: dict[str, list[float | None]] = IOUS) -> list[dict[str, Any]]:
    """One row per image and method, in no order; None is an error."""
    made = []
    for method, column in ious.items():
        for i, (image, iou) in enumerate(zip(IMAGES, column, strict=True)):
            named = {
                "image_id": f"image_{i}",
                "method": method,
                "wnid": image["wnid"],
                "class_name": f"the {image['wnid']}",
                "source": image["source"],
            }
            judged = (
                image | {"iou": iou, "iou_largest": iou / 2 if image["n_boxes"] > 1 else iou}
                if iou is not None
                else {"error": "no box"}
            )
            made.append(named | judged)
    return random.Random(0).sample(made, len(made))


def judged(made: list[dict[str, Any]] | None = None, methods: Sequence[str] = "abc") -> Judged:
    return Judged.from_table(pa.Table.from_pylist(rows() if made is None else made, ROWS), methods)


def random_judged(n: int, seed: int, methods: int = 3) -> Judged:
    """n images of up to seven classes; one box in ten is missing."""
    rng = np.random.default_rng(seed)
    iou = rng.random((methods, n)).astype(np.float32)
    iou[rng.random((methods, n)) < 0.1] = np.nan
    wnid = np.array([f"n{k}" for k in rng.integers(7, size=n)])
    return Judged(
        methods=tuple(f"m{m}" for m in range(methods)),
        image_id=np.array([f"image_{i:05d}" for i in range(n)]),
        wnid=wnid,
        class_name=np.char.add("the ", wnid),
        source=np.array([f"part_{k}" for k in rng.integers(2, size=n)]),
        n_boxes=rng.integers(1, 4, n),
        area=rng.random(n),
        recognised=rng.random(n) < 0.6,
        iou=iou,
        iou_largest=iou * rng.choice(np.array([0.5, 1], np.float32), n),
    )


# ------------------------------------------------------------------------------- the rows


def test_the_methods_are_aligned_in_the_order_of_the_images():
    j = judged(methods="cab")
    assert j.methods == ("c", "a", "b")
    assert j.image_id.tolist() == [f"image_{i}" for i in range(4)]
    assert j.wnid.tolist() == ["n1", "n1", "n1", "n2"]
    assert j.class_name.tolist() == ["the n1", "the n1", "the n1", "the n2"]
    assert j.source.tolist() == ["s/a", "s/a", "s/b", "s/b"]
    assert j.n_boxes.tolist() == [1, 2, 1, 3]  # from a method without an error
    assert j.area == pytest.approx([0.05, 0.1, 0.3, 0.5])
    assert j.recognised.tolist() == [True, True, False, True]
    expected = np.array([[np.nan, np.nan, 0.75, 0.49], IOUS["a"], [0.35, np.nan, 0.1, 0.7]])
    assert np.array_equal(j.iou, expected.astype(np.float32), equal_nan=True)
    assert j.iou.dtype == j.iou_largest.dtype == np.float32


def test_an_image_that_every_method_failed_is_left_out():
    j = judged(methods="bc")
    assert j.image_id.tolist() == ["image_0", "image_2", "image_3"]
    assert accuracy(j, 100, 0)["n_images"].to_pylist() == [3, 3]
    assert accuracy(j, 100, 0)["n_errors"].to_pylist() == [0, 1]


def test_a_row_with_an_error_has_no_box_whatever_it_says():
    made = [row | {"error": "too late"} if row["method"] == "b" else row for row in rows()]
    assert np.isnan(judged(made).iou[1]).all()


@pytest.mark.parametrize("method", "abc")
def test_an_image_twice_is_refused(method: str):
    again = next(row for row in rows() if row["method"] == method)
    with pytest.raises(ValueError, match=f"{method}: image {again['image_id']} has more"):
        judged([*rows(), again])


@pytest.mark.parametrize("method", "abc")
def test_a_missing_image_is_refused(method: str):
    made = [row for row in rows() if (row["method"], row["image_id"]) != (method, "image_2")]
    with pytest.raises(ValueError, match=f"{method} has no row of image image_2"):
        judged(made)


def test_a_method_without_rows_is_refused():
    with pytest.raises(ValueError, match="other has no row of image image_0"):
        judged(methods=["a", "other"])


@pytest.mark.parametrize("ious", [{}, {"a": [None] * 4, "b": [None] * 4, "c": [None] * 4}])
def test_no_image_is_refused(ious: dict[str, list[float | None]]):
    with pytest.raises(ValueError, match="no test image"):
        judged(rows(ious))


# ------------------------------------------------------------------------------- accuracy


def test_the_accuracy_of_four_images_by_hand():
    table = accuracy(judged(), 1000, 0)
    assert table.schema == ACCURACY
    a, b, c = table.to_pylist()
    assert [row["method"] for row in (a, b, c)] == ["a", "b", "c"]
    assert [row["n_images"] for row in (a, b, c)] == [4, 4, 4]
    assert [row["n_errors"] for row in (a, b, c)] == [0, 1, 2]
    assert [row["n_correct"] for row in (a, b, c)] == [3, 1, 1]
    assert [row["corloc"] for row in (a, b, c)] == [75, 25, 25]
    assert [row["class_mean"] for row in (a, b, c)] == pytest.approx([250 / 3, 50, 50 / 3])
    assert [row["corloc_30"] for row in (a, b, c)] == [75, 50, 50]
    assert [row["corloc_70"] for row in (a, b, c)] == [25, 25, 25]  # 0.7 itself is right
    assert [row["corloc_mean"] for row in (a, b, c)] == pytest.approx([175 / 3, 100 / 3, 100 / 3])
    assert [row["largest"] for row in (a, b, c)] == [25, 0, 25]
    assert [row["n_single"] for row in (a, b, c)] == [2, 2, 2]
    assert [row["single"] for row in (a, b, c)] == [50, 0, 50]
    assert [row["top1"] for row in (a, b, c)] == [50, 25, 0]
    for row in (a, b, c):
        assert 0 <= row["ci_low"] <= row["corloc"] <= row["ci_high"] <= 100
        assert row["class_mean_low"] <= row["class_mean"] <= row["class_mean_high"]


def test_without_single_box_images_there_is_no_share_of_them():
    j = judged([row | ({"n_boxes": 2} if "n_boxes" in row else {}) for row in rows()])
    assert accuracy(j, 100, 0)["single"].to_pylist() == [None] * 3
    assert accuracy(j, 100, 0)["n_single"].to_pylist() == [0] * 3


@LAW
@given(st.integers(1, 200), st.integers(0, 1000), st.sampled_from([0.3, 0.5, 0.7]))
def test_corloc_is_the_mean_and_an_error_is_wrong(n: int, seed: int, threshold: float):
    j = random_judged(n, seed)
    found = accuracy(j, 50, 0, threshold).to_pylist()
    filled = np.nan_to_num(j.iou, nan=0)
    for row, iou in zip(found, filled, strict=True):
        assert row["corloc"] == pytest.approx(100 * np.mean(iou >= np.float32(threshold)))
        interval = share(row["n_correct"], n, 50, 0)
        assert (row["ci_low"], row["ci_high"]) == (interval.low, interval.high)
        each = [np.mean(iou[j.wnid == k] >= np.float32(threshold)) for k in np.unique(j.wnid)]
        assert row["class_mean"] == pytest.approx(100 * np.mean(each))
        assert row["top1"] <= row["corloc"]
        assert row["largest"] <= row["corloc"]
        assert row["corloc_70"] <= row["corloc"] <= row["corloc_30"]


def test_a_threshold_is_the_same_in_both_precisions():
    made = rows({"a": [0.7, 0.3, 0.1, 0.6999999]})
    j = judged(made, ["a"])
    for threshold, right in ((0.7, [1, 0, 0, 0]), (0.3, [1, 1, 0, 1]), (np.float64(0.1), [1] * 4)):
        assert j.right(threshold)[0].tolist() == [bool(k) for k in right]


# ------------------------------------------------------------------------------- differences


def pair(only_a: int, only_b: int, both: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = [only_a, only_b, both, neither]
    return (
        np.repeat([True, False, True, False], counts),
        np.repeat([False, True, True, False], counts),
    )


@LAW
@given(*[st.integers(0, 60)] * 4, st.integers(0, 1000))
def test_a_difference_is_antisymmetric(a: int, b: int, both: int, neither: int, seed: int):
    one, two = pair(a, b, both, neither + 1)
    there, back = difference(one, two, 500, seed), difference(two, one, 500, seed)
    assert there == Difference(-back.value, -back.high, -back.low, back.p)
    assert there.value == pytest.approx(100 * (one.mean() - two.mean()))
    assert there.low - 1e-9 <= there.value <= there.high + 1e-9 or min(a, b) == 0
    verdicts = {"better": "worse", "worse": "better", "not separable": "not separable"}
    assert there.verdict == verdicts[back.verdict]


@LAW
@given(st.lists(st.booleans(), min_size=1), st.integers(0, 1000))
def test_a_method_is_not_separable_from_itself(right: list[bool], seed: int):
    same = difference(np.array(right), np.array(right), 100, seed)
    assert same == Difference(0, 0, 0, 1)
    assert same.verdict == "not separable"
    assert f"{same.low:+.1f} {same.high:+.1f}" == "+0.0 +0.0"


@pytest.mark.parametrize(
    ("only_a", "only_b", "p", "verdict"),
    [
        (5, 0, 2 / 2**5, "not separable"),  # the bootstrap's interval would exclude 0
        (6, 0, 2 / 2**6, "better"),
        (0, 6, 2 / 2**6, "worse"),
        (7, 1, 2 * 9 / 2**8, "not separable"),
        (8, 1, 2 * 10 / 2**9, "better"),
        (3, 3, 1.0, "not separable"),
    ],
)
def test_the_verdict_is_mcnemars_exact_test(
    only_a: int, only_b: int, p: float, verdict: str
) -> None:
    found = difference(*pair(only_a, only_b, 100, 100), 100, 0)
    assert found.p == pytest.approx(p)
    assert found.verdict == verdict


def test_the_interval_is_that_of_a_bootstrap_over_pairs():
    a, b = pair(40, 20, 150, 90)
    drawn = np.random.default_rng(1).integers(300, size=(5000, 300))
    expected = np.percentile((a[drawn].mean(1) - b[drawn].mean(1)) * 100, [2.5, 97.5])
    found = difference(a, b, 20_000, 0)
    assert [found.low, found.high] == pytest.approx(expected, abs=0.4)
    assert found.value == pytest.approx(20 / 3)


def test_pairs_separate_what_intervals_of_their_own_do_not():
    a, b = pair(20, 4, 150, 126)
    alone = [share(int(right.sum()), 300, 2000, 0) for right in (a, b)]
    assert alone[0].low < alone[1].high  # they overlap
    assert difference(a, b, 2000, 0).verdict == "better"


def test_the_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    covered = 0
    for counts in rng.multinomial(250, [0.2, 0.1, 0.4, 0.3], 400):
        found = difference(*pair(*counts), 500, 0)
        covered += found.low <= 10 <= found.high
    assert 0.92 <= covered / 400 <= 0.975


def test_differences_against_a_reference_by_hand():
    table = differences(judged(), "b", 1000, 0)
    assert table.schema == DIFFERENCES
    a, c = table.to_pylist()
    assert (a["method"], a["reference"], c["method"], c["reference"]) == ("a", "b", "c", "b")
    assert (a["difference"], a["only_method"], a["only_reference"]) == (50, 2, 0)
    assert (c["difference"], c["only_method"], c["only_reference"]) == (0, 1, 1)
    assert c["verdict"] == "not separable"
    assert differences(judged(methods="b"), "b", 100, 0).num_rows == 0
    with pytest.raises(ValueError, match="reference other is not one of a, b, c"):
        differences(judged(), "other", 100, 0)


def test_all_differences_are_those_of_every_pair_once():
    j = random_judged(300, 0, methods=4)
    table = all_differences(j, 200, 0, 0.3)
    assert table.schema == DIFFERENCES
    pairs = list(zip(table["method"].to_pylist(), table["reference"].to_pylist(), strict=True))
    assert pairs == [(f"m{a}", f"m{b}") for a in range(4) for b in range(a + 1, 4)]
    against = differences(j, "m3", 200, 0, 0.3).to_pylist()
    assert [row for row in table.to_pylist() if row["reference"] == "m3"] == against
    corloc = dict(zip(j.methods, accuracy(j, 10, 0, 0.3)["corloc"].to_pylist(), strict=True))
    for row in table.to_pylist():
        gap = corloc[row["method"]] - corloc[row["reference"]]
        assert row["difference"] == pytest.approx(gap)
        assert row["difference"] == pytest.approx(
            100 * (row["only_method"] - row["only_reference"]) / 300
        )


# ------------------------------------------------------------------------------- breakdown


def test_the_breakdown_of_four_images_by_hand():
    table = breakdown(judged(), 100, 0)
    assert table.schema == BREAKDOWN
    found = [
        (row["by"], row["group"], row["class_name"], row["n_images"], row["n_correct"])
        for row in table.to_pylist()
        if row["method"] == "a"
    ]
    assert found == [
        ("area", "under 10 %", None, 1, 0),
        ("area", "10 to 25 %", None, 1, 1),  # the lower edge belongs to its group
        ("area", "25 to 50 %", None, 1, 1),
        ("area", "over 50 %", None, 1, 1),
        ("recognised", "recognised", None, 3, 2),
        ("recognised", "not recognised", None, 1, 1),
        ("source", "s/a", None, 2, 1),
        ("source", "s/b", None, 2, 2),
        ("class", "n1", "the n1", 3, 2),
        ("class", "n2", "the n2", 1, 1),
    ]


@LAW
@given(st.integers(1, 100), st.integers(0, 1000))
def test_the_groups_hold_every_image_once(n: int, seed: int):
    j = random_judged(n, seed, methods=2)
    table, whole = breakdown(j, 20, 0).to_pylist(), accuracy(j, 20, 0).to_pylist()
    for over in whole:
        for by in ("area", "recognised", "source", "class"):
            mine = [row for row in table if (row["method"], row["by"]) == (over["method"], by)]
            assert sum(row["n_images"] for row in mine) == n
            assert sum(row["n_correct"] for row in mine) == over["n_correct"]
            for row in mine:
                assert row["corloc"] == pytest.approx(100 * row["n_correct"] / row["n_images"])
                assert row["ci_low"] - 1e-9 <= row["corloc"] <= row["ci_high"] + 1e-9
    right = sum(
        row["n_correct"] for row in table[: len(table) // 2] if row["group"] == "recognised"
    )
    assert whole[0]["top1"] == pytest.approx(100 * right / n)


def test_area_groups_stand_in_the_order_of_size():
    table = breakdown(random_judged(200, 0, methods=1), 20, 0).to_pylist()
    assert tuple(row["group"] for row in table if row["by"] == "area") == AREA_GROUPS


# ------------------------------------------------------------------------------- the curve


@LAW
@given(st.integers(1, 100), st.integers(0, 1000))
def test_the_curve_falls_and_passes_through_corloc(n: int, seed: int):
    """An IoU at the edge of a bin may stand in either, as float32 has it."""
    j = random_judged(n, seed)
    counts, iou = j.counts(), np.nan_to_num(j.iou, nan=-1)
    for m, method in enumerate(j.methods):
        share = curve(counts, method)
        assert (np.diff(share) <= 0).all()
        edges = np.arange(STEPS + 1)[:, None] / STEPS
        least, most = (100 * np.mean(iou[m] >= edges + gap, axis=1) for gap in (1e-6, -1e-6))
        assert (least - 1e-9 <= share).all()
        assert (share <= most + 1e-9).all()
