"""Heat maps that others made: our own, given back as files, get our own boxes."""

import re
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, copy_of, small_config

from sensloc.comparison import given
from sensloc.comparison.compare import compare
from sensloc.config import Compare
from sensloc.config.file import ConfigError, load_config
from sensloc.rows import vectors
from sensloc.store.run import RunDir, RunError

SECTION = Compare(
    methods=("sensitivity", "gradient_threshold", "gradient_mass"),
    train=10_000,
    validation=10_000,
    label_counts=(5,),
    label_draws=1,
    speed_images=4,
    speed_rounds=1,
)


def test_encoded_by_hand() -> None:
    coarse = np.array([[0, 8]])
    assert given.encoded(coarse, 2).tolist() == [0, 1, 0, 1]
    fine = np.array([[1, 3, 4, 4], [2, 2, 4, 4], [0, 0, 8, 8], [0, 0, 8, 8.0]])
    assert given.encoded(fine, 2).tolist() == [0.25, 0.5, 0, 1]
    assert given.encoded(fine[None, None], 2).tolist() == [0.25, 0.5, 0, 1]
    assert given.encoded(np.array([[-1, 0], [1, 3]]), 2).tolist() == [0, 0.25, 0.5, 1]
    assert given.encoded(np.zeros((5, 3), bool), 2).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.ones((3, 4, 4)), r"\[3, 4, 4\] of float64, not a map \[h, w\]"),
        (np.ones(4), r"\[4\] of float64"),
        (np.float64(1.0), r"\[\] of float64"),
        (np.ones((0, 4)), r"\[0, 4\]"),
        (np.array([["a", "b"]]), "of <U1"),
        (np.array([[1, np.nan]]), "not finite"),
        (np.array([[1, np.inf]]), "not finite"),
    ],
)
def test_what_is_no_map_is_refused(array: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        given.encoded(np.asarray(array), 2)


@pytest.fixture(scope="module")
def own(small_run: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the run's own maps as arrays of files, two of them broken, and as a table."""
    folder = tmp_path_factory.mktemp("maps")
    rows = pq.read_table(small_run.path("sensitivity")).filter(pa.compute.field("error").is_null())
    ids, maps = rows["image_id"].to_pylist(), vectors(rows, "map")
    side = small_run.config.sensitivity.grid
    for image_id, values in zip(ids, maps, strict=True):
        file = folder / f"{image_id}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, 7 * values.reshape(side, side))
    tests = [row["image_id"] for row in rows.to_pylist() if row["split"] == "test"]
    missing, broken, *_ = sorted(tests)
    (folder / f"{missing}.npy").unlink()
    (folder / f"{broken}.npy").write_bytes(b"\x93NUMPY broken")
    sides = pa.array([side] * len(ids))
    columns = {"image_id": rows["image_id"], "map": rows["map"], "height": sides, "width": sides}
    pq.write_table(pa.table(columns), folder / "maps.parquet")
    return folder


@pytest.fixture(scope="module")
def predictions(small_run: RunDir, own: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Compare the run's own methods with those of its maps given back."""
    maps = {"files": f"{own}/{{image_id}}.npy", "table": f"{own}/maps.parquet"}
    section = SECTION.model_copy(update={"maps": maps})
    run = copy_of(small_run, tmp_path_factory.mktemp("given") / "run", section)
    compare(run)
    return run


def boxes(run: RunDir, method: str) -> dict[str, Any]:
    """Return a method's boxes, or errors, by image."""
    rows = pq.read_table(run.path("compare/predictions")).to_pylist()
    return {r["image_id"]: r["error"] or r["box"] for r in rows if r["method"] == method}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("gradient_threshold", "given_table_threshold"),
        ("gradient_mass", "given_table_mass"),
        ("sensitivity", "given_table_linear"),
        ("sensitivity_calibrated", "given_table_linear_calibrated"),
    ],
)
def test_our_own_maps_get_our_own_boxes(predictions: RunDir, ours: str, theirs: str) -> None:
    expected = boxes(predictions, ours)
    assert len(expected) == 50
    assert boxes(predictions, theirs) == expected


def test_a_map_that_is_missing_or_broken_is_an_error_of_its_methods(predictions: RunDir) -> None:
    reasons = sorted(v for v in boxes(predictions, "given_files_mass").values() if type(v) is str)
    assert len(reasons) == 2
    assert "FileNotFoundError" in reasons[0]
    assert reasons[1].startswith("not a .npy file")
    assert not any(type(v) is str for v in boxes(predictions, "sensitivity").values())


def test_they_stand_in_the_table_without_a_time(predictions: RunDir) -> None:
    table = {
        r["method"]: r for r in pq.read_table(predictions.path("compare/table.parquet")).to_pylist()
    }
    row = table["given_table_threshold"]
    assert row["title"] == "table (given), threshold"
    assert row["max_box_acc_v2"] == table["gradient_threshold"]["max_box_acc_v2"]
    assert row["ms_per_image"] is None
    assert table["sensitivity"]["ms_per_image"] > 0
    assert {"given_files_soft_iou", "given_table_soft_iou"} <= set(table)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("elsewhere/{image_id}.npy", "no map of 64 of the run's images, whose ids are such as"),
        ("elsewhere.parquet", "no Parquet table with the columns image_id, map, height, width"),
    ],
)
def test_maps_that_are_not_there_are_said_at_once(
    small_run: RunDir, own: Path, tmp_path: Path, place: str, reason: str
) -> None:
    section = SECTION.model_copy(update={"maps": {"mine": f"{own}/{place}"}})
    run = copy_of(small_run, tmp_path / "run", section)
    with pytest.raises(RunError, match=reason):
        compare(run)
    assert not run.exists("compare")


def test_a_table_says_what_is_wrong_with_a_row(tmp_path: Path) -> None:
    table = {
        "image_id": ["a", "b", "b", "c", "d"],
        "map": [[1.0, 2.0], [1.0], [1.0], [1.0, 2.0, 3.0], None],
        "height": [1, 1, 1, 2, 1],
        "width": [2, 1, 1, 2, 1],
    }
    pq.write_table(pa.table(table), tmp_path / "maps.parquet")
    first, *others = given.read(f"{tmp_path}/maps.parquet", ["a", "b", "c", "d", "e"], 1)
    assert not isinstance(first, ValueError)
    assert first.tolist() == [1]
    assert [str(problem) for problem in others] == [
        "2 rows of it",
        "a map of 3 values, height 2 and width 2",
        "a map of 0 values, height 1 and width 1",
        "0 rows of it",
    ]


@pytest.mark.parametrize("maps", ['{a = "maps.npy"}', '{a = "{image_id}.npz"}', '{"A-b" = "x"}'])
def test_a_place_that_cannot_be_is_refused_by_its_key(tmp_path: Path, maps: str) -> None:
    small_config(tmp_path)
    with pytest.raises(ConfigError, match=r"compare\.maps"):
        load_config(str(tmp_path / "small.toml"), changes=[f"compare.maps={maps}"])


def test_the_page_does_it_for_other_tools(
    small_run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its blocks are run in their order, that of Quantus where that is installed.

    captum's saliency is the paper's map.
    """
    page = (ROOT / "docs/your_maps.md").read_text()
    has_quantus = find_spec("quantus") is not None
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (places,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    maps = tomllib.loads(places)["compare"]["maps"]
    assert len(blocks) == 1 + len(maps)
    run = copy_of(small_run, tmp_path / "runs/mine", SECTION)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for block in blocks:
        if has_quantus or "quantus" not in block:
            exec(compile(block, "page", "exec"), namespace)
    rows = pq.read_table(run.path("sensitivity")).to_pylist()
    ours = {row["image_id"]: row["map"] for row in rows if row["error"] is None}
    grid = run.config.sensitivity.grid
    for name, place in maps.items():
        if name == "quantus" and not has_quantus:
            continue
        theirs = given.read(f"{tmp_path}/{place}", list(ours), grid)
        assert not any(isinstance(found, ValueError) for found in theirs)
        if name == "captum":
            np.testing.assert_allclose(theirs, list(ours.values()), atol=2e-3)
