"""A fitted method is written whole: what is read back predicts the same bits."""

import json
from dataclasses import fields, is_dataclass

import numpy as np
import pyarrow as pa
import pytest
from test_methods import masks, random_boxes, table
from test_proposal import LEFT, RIGHT, WHOLE

from sensloc.heatmaps.readout import Readout
from sensloc.methods import Fitted, Method, catalogue, saved
from sensloc.methods.constant import ClassBox, ConstantBox
from sensloc.methods.least_squares import LinearMap, NormalEquations
from sensloc.methods.linear import LinearBox
from sensloc.methods.proposal import BestProposal, ChosenProposal, FirstProposal, RandomProposal
from sensloc.methods.soft_iou import SoftIoUBox
from sensloc.methods.threshold import MassBox, ThresholdBox
from sensloc.store import tables

BOXES = random_boxes(20)


@pytest.fixture
def rows() -> pa.Table:
    """What every method reads, and names of classes that could be taken for the format's own."""
    proposals = pa.array([[LEFT, RIGHT, WHOLE]] * 20, pa.list_(tables.BOX))
    return (
        table(masks(BOXES), BOXES)
        .append_column("wnid", pa.array(["kind", "array", "mapping", "n1"] * 5))
        .append_column("image_id", pa.array([str(i) for i in range(20)]))
        .append_column("proposals", proposals)
        .append_column("chosen", pa.array([0, 2] * 10))
    )


def linear_box(ridge: float) -> LinearBox:
    maps = masks(BOXES)
    linear = NormalEquations.from_batch(maps, np.concatenate(BOXES)).solve(ridge)
    return LinearBox(linear, "sum", (0.1 + 0.2, 1.5), ("map",))


METHODS: list[Method] = [
    ConstantBox((0.1, 0.2, 0.1 + 0.2, 0.7)),
    ClassBox({"kind": (0.0, 0.0, 0.3, 0.4), "array": (0.1, 0.1, 1.0, 1.0)}, (0.0, 0.0, 1.0, 1.0)),
    linear_box(1e-3),
    linear_box(np.inf),
    ThresholdBox("map", 0.3),
    MassBox("map", 0.05),
    SoftIoUBox("map", 8.0, 1.5),
    FirstProposal(),
    RandomProposal(3),
    BestProposal(),
    ChosenProposal("chosen"),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_what_is_read_back_is_the_same_to_the_bit(method: Method, rows: pa.Table):
    facts = {"n_train": 20, "ridge": 0.1, "factors": [1.0, 1.5]}
    data = saved.dumps(Fitted(method, facts), config_hash="0123")
    loaded = saved.loads(data, "a.npz")
    assert type(loaded.method) is type(method)
    assert loaded.facts == facts
    assert loaded.reads == method.reads
    assert np.array_equal(loaded.predict(rows), method.predict(rows))
    assert saved.dumps(loaded, config_hash="0123") == data


def test_every_kind_is_among_these():
    known = {type(method) for method in METHODS} | {LinearMap, Readout}
    assert known == {saved.kind(name) for name in saved.KINDS}
    for kind in known - {LinearMap}:
        assert is_dataclass(kind)
        assert "kind" not in {field.name for field in fields(kind)}  # the format's own


def test_a_linear_map_that_is_read_back_has_all_but_its_sums():
    box = linear_box(1e-3)
    linear = saved.loads(saved.dumps(Fitted(box, {})), "a.npz").method.linear
    for name in ("ridge", "n_samples_seen_", "n_features_in_", "condition_number_"):
        assert getattr(linear, name) == getattr(box.linear, name)
    assert vars(box.linear).keys() - vars(linear).keys() == {"sums_"}


def test_a_file_opens_in_numpy_and_says_in_json_what_it_is(tmp_path):
    box, file = linear_box(1e-3), tmp_path / "method.npz"
    file.write_bytes(saved.dumps(Fitted(box, {"n_train": 20}), run="mine"))
    with np.load(file) as archive:
        assert np.array_equal(archive["linear.coef_"], box.linear.coef_)
        said = json.loads(archive.zip.read("method.json"))
    assert said["method"]["kind"] == "linear box"
    assert said["method"]["columns"] == ["map"]
    assert said["facts"] == {"n_train": 20}
    assert said["made_by"] == {"run": "mine"}


def test_what_is_no_method_is_refused_with_the_name_of_its_file():
    whole = saved.dumps(Fitted(FirstProposal(), {}))
    other = whole.replace(b"first proposal", b"other proposal")
    for data in (b"", b"no archive", whole[:50], other):
        with pytest.raises(saved.MethodError, match=r"runs/a\.npz: not a method"):
            saved.loads(data, "runs/a.npz")
    with pytest.raises(saved.MethodError, match="a first proposal cannot get a box from heat maps"):
        saved.of_maps(FirstProposal())


def test_the_catalogues_names_are_of_one_method_each():
    names = catalogue.with_twins(catalogue.METHODS)
    assert len(set(names)) == len(names)
    papers = ("constant_mean", "constant_tuned", "sensitivity", "sensitivity_calibrated")
    assert catalogue.of_run(["gradient"]) == papers
    assert catalogue.of_run(["gradient", "foreground"]) == (*papers, "foreground")
    assert len({catalogue.title(name) for name in names}) == len(names)
    for name in names:
        assert catalogue.base(name) in catalogue.METHODS
        assert not catalogue.base(name).endswith(catalogue.CALIBRATED)
