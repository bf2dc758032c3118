"""The comparison's table and page: the numbers of the protocol, in words that can be checked."""

import numpy as np
import pyarrow as pa
import pytest

from sensloc.comparison.less import LABELS, UNSEEN
from sensloc.comparison.table import METHODS, methods_table
from sensloc.config import Config
from sensloc.methods import catalogue
from sensloc.report import comparison
from sensloc.scoring import paired
from sensloc.scoring.accuracy import breakdown

N = 40
RIGHT = {"constant_mean": 10, "sensitivity": 30, "sensitivity_calibrated": 31, "perfect_mask": 40}
"""Of 40 images the first so many are right."""


def judged() -> paired.Judged:
    hits = np.arange(N) < np.array(list(RIGHT.values()))[:, None]
    iou = np.where(hits, 0.6, 0.2).astype(np.float32)
    return paired.Judged(
        methods=tuple(RIGHT),
        image_id=np.array([f"{i:02d}" for i in range(N)]),
        wnid=np.array(["cat", "dog"] * (N // 2)),
        class_name=np.array(["a cat", "a dog"] * (N // 2)),
        source=np.array(["mine"] * N),
        n_boxes=np.ones(N, np.int64),
        area=np.linspace(0.05, 0.95, N),
        recognised=np.ones(N, bool),
        iou=iou,
        iou_largest=iou,
    )


@pytest.fixture
def config() -> Config:
    return Config.model_validate(
        {
            "name": "mine",
            "output": "somewhere",
            "dataset": {"layout": "voc", "root": "data"},
            "classifier": {"source": "efficientnet_lite0"},
            "evaluate": {"bootstrap": 200},
        }
    )


@pytest.fixture
def methods(config: Config) -> pa.Table:
    chosen = {name: {"n_train": 7} for name in RIGHT}
    ms = dict.fromkeys(RIGHT, 12.5)
    return methods_table(judged(), chosen, {"sensitivity": 71.0}, ms, config.evaluate)


def page(methods: pa.Table, config: Config, unseen: pa.Table) -> str:
    groups = breakdown(judged(), 200, 0)
    labels = pa.Table.from_pylist(
        [
            {"method": "sensitivity", "per_class": k, "draw": d, "n_train": 9, "corloc": c}
            for k, d, c in ((1, 0, 40.0), (1, 1, 50.0), (None, 0, 75.0))
        ],
        LABELS,
    )
    return comparison.markdown(methods, groups, labels, unseen, {"10": 81.25}, config)


def test_the_table_by_hand(methods: pa.Table) -> None:
    rows = {row["method"]: row for row in methods.to_pylist()}
    assert list(rows) == list(RIGHT)
    mean, own, calibrated, mask = rows.values()
    assert [row["corloc"] for row in rows.values()] == [25, 75, 77.5, 100]
    assert (mean["difference"], mean["verdict"], mean["reference"]) == (-50, "worse", "sensitivity")
    assert own["difference"] is None
    assert own["verdict"] is None
    assert (calibrated["difference"], calibrated["verdict"]) == (2.5, "not separable")
    assert (mask["difference"], mask["verdict"]) == (25, "better")
    assert (mask["ms_per_image"], mean["ms_per_image"]) == (None, 12.5)  # it reads the truth
    assert (own["max_box_acc_v2"], mean["max_box_acc_v2"]) == (71, None)
    assert (mean["paper"], own["paper"], calibrated["paper"]) == (12.34, 82.76, None)
    assert methods.schema == METHODS


def test_the_page_shows_what_the_table_holds(methods: pa.Table, config: Config) -> None:
    text = page(methods, config, UNSEEN.empty_table())
    assert "| centre box of mean size | 25.0 [" in text
    assert "| worse | 7 | 12.5 | 12.34 |" in text
    assert "| sensitivity map, linear map | 45.0 [40.0, 50.0] | 75.0 [75.0, 75.0] |" in text
    assert "81.2 % of the objects at 10 proposals" in text
    assert "under 10 % (3)" in text
    assert "Unseen" not in text, "a single class has no halves"
    for name in RIGHT:
        assert text.count(f"| {catalogue.title(name)} |") >= 3


def test_the_unseen_classes_have_a_section_of_their_own(methods: pa.Table, config: Config) -> None:
    row = {
        "method": "sensitivity", "tested_on": "both", "n_images": 40, "seen": 75.0, "unseen": 70.0,
        "difference": -5.0, "low": -9.0, "high": -1.0, "p": 0.01, "verdict": "worse",
    }  # fmt: skip
    text = page(methods, config, pa.Table.from_pylist([row], UNSEEN))
    assert "| both groups (40) | 75.0 | 70.0 | -5.0 [-9.0, -1.0] | worse |" in text


def test_without_the_sensitivity_map_the_first_method_is_the_reference(config: Config) -> None:
    whole = judged()
    part = paired.Judged(
        methods=("constant_mean", "perfect_mask"),
        **{
            name: getattr(whole, name)
            for name in ("image_id", "wnid", "class_name", "source", "n_boxes", "area")
        },
        recognised=whole.recognised,
        iou=whole.iou[[0, 3]],
        iou_largest=whole.iou_largest[[0, 3]],
    )
    facts, ms = {name: {} for name in part.methods}, dict.fromkeys(part.methods, 1.0)
    rows = methods_table(part, facts, {}, ms, config.evaluate).to_pylist()
    assert [row["reference"] for row in rows] == [None, "constant_mean"]
    assert rows[1]["difference"] == 75
