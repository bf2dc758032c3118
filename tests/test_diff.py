"""Two runs beside each other: the same images, and what differs."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import copied

from sensloc.stages.views.diff import diff
from sensloc.store.run import RunDir, RunError

pytestmark = pytest.mark.usefixtures("cluster")


def lines_of(text: str) -> dict[str, list[str]]:
    """The words of each line of the table, by method."""
    table = text.partition("\n\n")[2].partition("\n\n")[0].splitlines()[1:]
    return {name: words for name, *words in map(str.split, table)}


def test_a_run_does_not_differ_from_itself_in_either_set(small_run: RunDir) -> None:
    for split, n in (("test", "50"), ("validation", "51")):
        text = diff(small_run, small_run, split)
        there, here, *differs = text.partition("\n\n")[0].splitlines()
        assert (there, here) == (f"there: {small_run.url}", f"here:  {small_run.url}")
        assert not differs
        rows = lines_of(text)
        assert {"constant_tuned", "sensitivity", "foreground"} <= rows.keys()
        for images, first, second, gap, *_ in rows.values():
            assert (images, gap) == (n, "+0.0")
            assert first == second


def test_what_differs_is_said_and_counted_on_common_images(
    small_run: RunDir, tmp_path: Path
) -> None:
    """Ten of fifty images are taken away, and of those left three lose their box."""
    other = copied(small_run, tmp_path / "run")
    ids = sorted(pq.read_table(other.path("predictions"))["image_id"].unique().to_pylist())
    rows = pa.concat_tables([pq.read_table(file) for file in other.files("predictions")])
    first, *rest = other.files("predictions")
    rows = rows.filter(pc.is_in(rows["image_id"], pa.array(ids[10:])))
    mine = np.asarray(pc.equal(rows["method"], "foreground"))
    right = np.asarray(rows["correct"]) & mine
    iou = np.where(right & (np.cumsum(right) <= 3), 0, np.asarray(rows["iou"])).astype(np.float32)
    pq.write_table(rows.set_column(rows.column_names.index("iou"), "iou", pa.array(iou)), first)
    for file in rest:
        Path(file).unlink()
    record = json.loads(other.read("run.json"))
    record["config"]["fit"]["normalise"] = "max"
    record["code"]["boxes.py"] = record["code"]["dice.py"] = "another"
    other.write("run.json", json.dumps(record))
    text = diff(small_run, other)
    assert "  config.fit.normalise: 'l2' there, 'max' here\n  code: 2 files differ\n\n" in text
    images, before, after, gap, *_ = lines_of(text)["foreground"]
    assert images == "40"
    assert float(before) - float(after) == pytest.approx(7.5)
    assert gap == "-7.5"
    assert lines_of(text)["sensitivity"][3] == "+0.0"


def test_runs_that_have_no_image_in_common_are_refused(small_run: RunDir, tmp_path: Path) -> None:
    other = copied(small_run, tmp_path / "run")
    for file in other.files("predictions"):
        pq.write_table(pq.read_table(file).slice(0, 0), file)
    with pytest.raises(RunError, match="no test image is judged in both"):
        diff(small_run, other)
    stages = json.loads(other.read("run.json"))
    del stages["stages"]["evaluate"]
    other.write("run.json", json.dumps(stages))
    with pytest.raises(RunError, match="evaluate"):
        diff(small_run, other)
