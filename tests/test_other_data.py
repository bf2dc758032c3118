"""A fitted run on other data: on its own images it gives its own rows, and on others no fewer."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import copied
from test_cli import sensloc

from sensloc.datasets.scenes import png, render
from sensloc.methods import catalogue
from sensloc.prediction.confidence import calibration_error
from sensloc.prediction.facts import read_facts
from sensloc.report.status import Code, status
from sensloc.stages.fitted import FittedRun
from sensloc.stages.other_data import judge
from sensloc.stages.views.coco import coco
from sensloc.stages.views.diff import diff
from sensloc.store.run import RunDir, RunError

pytestmark = pytest.mark.usefixtures("cluster")

UNKNOWN, IMAGES = "zebra", 48
"""A class that the network lacks: of every sixth image; and one of the images is broken."""

CONF = """
name = "table"
output = "nowhere"

[dataset]
layout = "table"
root = "{root}"

[resources]
actors = 1
cpus_per_task = 1.0
rows_per_block = 16
"""


def write_set(folder: Path, unknown: int, n: int = IMAGES) -> Path:
    """Write scenes that no run has seen, as a table of boxes; return its config file."""
    folder.mkdir()
    with (folder / "boxes.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(("uri", "label", "x0", "y0", "x1", "y1"))
        for i in range(n):
            pixels, digit, corners = render(7, i)
            (folder / f"{i:03d}.png").write_bytes(png(pixels))
            lines.writerow((f"{i:03d}.png", UNKNOWN if i % unknown == 0 else digit, *corners))
    (folder / "005.png").write_bytes(b"\x89PNG and no end")
    conf = folder / "other.toml"
    conf.write_text(CONF.format(root=folder))
    return conf


def evaluate(run: str | Path, conf: Path, output: Path, *more: str) -> RunDir:
    """``sensloc evaluate RUN CONF --output OUTPUT``."""
    done = sensloc("evaluate", str(run), str(conf), f"--output={output}", *more)
    assert done.exit_code == 0, done.output
    return RunDir.found(str(output))


def refusal(run: str | Path, conf: Path, output: Path, *more: str) -> str:
    """The one message that the same command ends with."""
    done = sensloc("evaluate", str(run), str(conf), f"--output={output}", *more)
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    (message,) = re.findall(r"^error: .*$", done.output, re.MULTILINE)
    return str(message)


def rows(run: RunDir, table: str = "predictions") -> pd.DataFrame:
    keys = ["method", "image_id"] if table == "predictions" else ["image_id"]
    return pq.read_table(run.path(table)).to_pandas().sort_values(keys).reset_index(drop=True)


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("other") / "set", 6)


@pytest.fixture(scope="module")
def elsewhere(small_run: RunDir, conf: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The small run, judged on these."""
    return evaluate(small_run.url, conf, tmp_path_factory.mktemp("elsewhere") / "run")


@pytest.fixture(scope="module")
def at_home(small_run: RunDir, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The small run, judged on its own 400 images."""
    own = Path(small_run.url).with_name("small.toml")
    return evaluate(small_run.url, own, tmp_path_factory.mktemp("home") / "run")


# --------------------------------------------------------------------------- its own data


def test_on_its_own_data_it_gives_its_own_rows(small_run: RunDir, at_home: RunDir) -> None:
    ours, theirs = rows(small_run), rows(at_home)
    methods, images = set(ours.method), set(ours.image_id)
    same = theirs[theirs.method.isin(methods) & theirs.image_id.isin(images)]
    assert len(ours) == len(images) * len(methods) == 50 * 5
    assert not ours.recognised.all(), "some maps of the true class were made in the second pass"
    pd.testing.assert_frame_equal(ours, same.reset_index(drop=True), check_exact=True)
    assert theirs.image_id.nunique() == 400


def test_and_its_own_confidence(small_run: RunDir, at_home: RunDir) -> None:
    ours, theirs = rows(small_run, "confidence"), rows(at_home, "confidence")
    both = theirs[theirs.image_id.isin(ours.image_id)].reset_index(drop=True)
    assert len(both) == len(ours) > 100
    assert set(both.split) == {"test"}
    columns = ["image_id", "recognised", "iou", "correct", "confidence"]
    pd.testing.assert_frame_equal(ours[columns], both[columns], check_exact=True)


def test_the_two_differ_in_nothing_but_what_is_said(small_run: RunDir, at_home: RunDir) -> None:
    table = diff(small_run, at_home).partition("\n\n")[2].partition("\n\n")[0].splitlines()[1:]
    assert len(table) == 5
    for line in table:
        _, images, first, second, gap, *_ = line.split()
        assert (images, gap) == ("50", "+0.0")
        assert first == second


# --------------------------------------------------------------------------- other data


def test_every_image_has_a_row_by_every_method(elsewhere: RunDir) -> None:
    """Where the network lacks the class, the row of a method that needs it says so."""
    found = rows(elsewhere)
    free = {catalogue.MEAN_BOX, catalogue.TUNED_BOX}
    twins = {name for name in found.method if name.endswith(catalogue.BY_PREDICTED)}
    by_truth = {name.removesuffix(catalogue.BY_PREDICTED) for name in twins}
    assert by_truth == {"sensitivity", "sensitivity_calibrated", "foreground"}
    assert set(found.method) == free | twins | by_truth
    assert (found.groupby("method").image_id.nunique() == IMAGES).all()
    assert len(found) == IMAGES * found.method.nunique()
    broken = found[found.image_id == "005.png"]
    assert broken.error.str.contains("005.png: ").all()
    others = found[found.image_id != "005.png"]
    needs = others.method.isin(by_truth) & (others.wnid == UNKNOWN)
    assert (others[needs].error == f"class {UNKNOWN} is not one of the classifier's").all()
    assert needs.sum() == IMAGES // 6 * len(by_truth)
    assert others[~needs].error.isna().all()


def test_each_method_counts_the_images_that_it_can_judge(elsewhere: RunDir) -> None:
    corloc, found = pq.read_table(elsewhere.path("corloc")).to_pandas(), rows(elsewhere)
    overall = corloc[corloc.scope == "overall"].set_index("method")
    known = IMAGES - 1 - IMAGES // 6
    for method, row in overall.iterrows():
        needs = found[(found.method == method) & found.error.notna()].wnid.eq(UNKNOWN).any()
        assert row.n_images == (known if needs else IMAGES - 1)
        mine = found[(found.method == method) & found.error.isna()]
        assert row.n_correct == mine.correct.sum()
        constant = found[(found.method == catalogue.TUNED_BOX) & found.error.isna()]
        floor = 100 * constant[constant.image_id.isin(mine.image_id)].correct.mean()
        assert row.headroom == pytest.approx(100 * (row.corloc - floor) / (100 - floor))
    table = elsewhere.read("table.md").decode()
    assert f"/ {known}" in table
    assert f"{IMAGES // 6} images are of classes that the network lacks (1 classes)" in table
    assert "the constant box that was tuned on the train images of small, not on these" in table


def test_the_methods_are_the_fitted_runs(small_run: RunDir, elsewhere: RunDir) -> None:
    for name in catalogue.of_run(small_run.config.maps):
        place = f"methods/{name}.npz"
        assert elsewhere.read(place) == small_run.read(place)
    taken = elsewhere.stages()["classifier"]["taken_from"]
    assert (taken["run"], taken["url"]) == ("small", small_run.url)
    assert taken["constant"] == pytest.approx(small_run.stages()["fit"]["constant_tuned"])


def test_sizes_and_recognition_are_broken_down(elsewhere: RunDir) -> None:
    groups, found = pq.read_table(elsewhere.path("breakdown.parquet")).to_pandas(), rows(elsewhere)
    assert {"area", "recognised", "source", "class"} == set(groups.by)
    for method in ("constant_tuned", "sensitivity", "sensitivity_predicted"):
        mine = found[(found.method == method) & found.error.isna()]
        part = groups[(groups.method == method) & (groups.by == "recognised")].set_index("group")
        seen = mine.recognised.fillna(False).astype(bool)
        assert part.n_images.get("recognised", 0) == seen.sum()
        assert part.n_images["not recognised"] == (~seen).sum()
        assert part.n_correct["not recognised"] == mine[~seen].correct.sum()
        assert groups[(groups.method == method) & (groups.by == "area")].n_images.sum() == len(mine)


def test_where_the_class_is_recognised_both_maps_are_one(at_home: RunDir) -> None:
    found = rows(at_home)
    seen = found[found.recognised]
    for method in ("sensitivity", "foreground"):
        mine, twin = (seen[seen.method == name] for name in (method, f"{method}_predicted"))
        assert len(mine) > 0
        np.testing.assert_array_equal(np.stack(mine.box), np.stack(twin.box))


def test_the_confidence_is_what_was_promised_and_kept_here(
    small_run: RunDir, elsewhere: RunDir
) -> None:
    (_, learned), (_, here) = read_facts(small_run.url), read_facts(elsewhere.url)
    assert here.confidence == learned.confidence
    assert here.validation == learned.validation
    assert here.test.images == IMAGES - 1
    kept = rows(elsewhere, "confidence")
    assert here.test.corloc == pytest.approx(100 * kept.correct.mean())
    assert here.test.confidence == pytest.approx(100 * kept.confidence.mean(), abs=1e-4)
    error = 100 * calibration_error(here.test.reliability)
    assert here.test.calibration_error == pytest.approx(error)
    found = rows(elsewhere)
    mine = found[(found.method == f"{here.method}_predicted") & found.error.isna()]
    assert list(mine.image_id) == list(kept.image_id)
    assert list(mine.correct) == list(kept.correct)


# --------------------------------------------------------------------------- a run like others


def test_a_copy_of_the_localizer_gives_the_same(
    small_run: RunDir, elsewhere: RunDir, conf: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(small_run.path("localizer"), tmp_path / "copy")
    run = evaluate(copy, conf, tmp_path / "run")
    pd.testing.assert_frame_equal(rows(elsewhere), rows(run), check_exact=True)
    assert run.read("table.md") == elsewhere.read("table.md")


def test_a_run_by_predicted_classes_is_judged_by_these_alone(
    small_run: RunDir, elsewhere: RunDir, conf: Path, tmp_path: Path
) -> None:
    """Under the plain names, and it goes on too."""
    copy = Path(shutil.copytree(small_run.path("localizer"), tmp_path / "copy"))
    facts = json.loads((copy / "localizer.json").read_text())
    facts["sensitivity"]["label"] = "predicted"
    (copy / "localizer.json").write_text(json.dumps(facts))
    for _ in range(2):
        run = evaluate(copy, conf, tmp_path / "run")
    ours, theirs = rows(run), rows(elsewhere)
    assert set(ours.method) == set(catalogue.of_run(small_run.config.maps))
    twins = theirs[theirs.method.str.endswith(catalogue.BY_PREDICTED)]
    twins = twins.assign(method=twins.method.str.removesuffix(catalogue.BY_PREDICTED))
    mine = ours[ours.method.isin(twins.method)].reset_index(drop=True)
    twins = twins.sort_values(["method", "image_id"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, twins, check_exact=True)
    assert "maps of the predicted class" in run.read("table.md").decode()


def cut_off(run: RunDir, folder: Path, stage: str, table: str) -> RunDir:
    """Copy a run directory as it was when a stage had written half of its units."""
    half = copied(run, folder)
    record = half.facts()
    names = list(record["stages"])
    for name in names[names.index(stage) + 1 :]:
        del record["stages"][name]
    del record["stages"][stage]["finished"]
    half.write("run.json", json.dumps(record))
    for file in half.files(table)[1::2]:
        Path(file).unlink()
    return half


@pytest.mark.parametrize(
    ("stage", "table"), [("sensitivity", "sensitivity"), ("evaluate", "predictions")]
)
def test_stopped_it_goes_on_to_the_same_rows(
    small_run: RunDir, elsewhere: RunDir, tmp_path: Path, stage: str, table: str
) -> None:
    half = cut_off(elsewhere, tmp_path / "run", stage, table)
    assert status(half).code == Code.INCOMPLETE
    kept = {file: Path(file).stat().st_mtime_ns for file in half.files(table)}
    judge(half, FittedRun.read(small_run.url))
    assert {file: Path(file).stat().st_mtime_ns for file in kept} == kept
    for name in ("sensitivity", "predictions", "corloc", "confidence"):
        assert pq.read_table(half.path(name)).equals(pq.read_table(elsewhere.path(name)))
    assert status(half).code == Code.COMPLETE


def test_status_report_and_exports_work_on_it(elsewhere: RunDir, tmp_path: Path) -> None:
    run = copied(elsewhere, tmp_path / "run")
    assert sensloc("status", run.url).exit_code == 0
    done = sensloc("report", run.url)
    assert done.exit_code == 0, done.output
    page = run.read("report.html").decode()
    assert "small_on_table" in page
    assert "Judged on other data" in page
    assert catalogue.title("sensitivity_predicted") in page
    assert "boxes by constant_mean" in coco(run)
    sql = f"SELECT count(*) FROM '{run.path('confidence')}/*.parquet' WHERE split = 'test'"
    assert duckdb.sql(sql).fetchall() == [(IMAGES - 1,)]


def test_the_fitted_run_is_left_as_it_is(
    small_run: RunDir, conf: Path, elsewhere: RunDir, tmp_path: Path
) -> None:
    def files(folder: str) -> dict[str, Any]:
        return {str(file): file.stat().st_mtime_ns for file in Path(folder).rglob("*")}

    before = files(small_run.url)
    fitted = FittedRun.read(small_run.url)
    config = fitted.config_on(str(conf), None, elsewhere.url)
    judge(RunDir.open(config), fitted)
    assert files(small_run.url) == before


# --------------------------------------------------------------------------- what is refused


def test_a_set_without_a_common_class_is_refused(small_run: RunDir, tmp_path: Path) -> None:
    conf = write_set(tmp_path / "set", 1, 6)
    message = refusal(small_run.url, conf, tmp_path / "run")
    assert f"none of its classes ({UNKNOWN}) is one of small's network (0, 1, 2" in message
    assert "name the classes in the annotations as the network's" in message
    assert refusal(small_run.url, conf, tmp_path / "run") == message
    assert status(RunDir.found(str(tmp_path / "run"))).code == Code.FAILED


@pytest.mark.parametrize(
    "lost", ["localizer.json", "methods/constant_tuned.npz", "readout.npz", "classifier.pt"]
)
def test_half_a_localizer_is_refused_before_anything_is_made(
    small_run: RunDir, conf: Path, tmp_path: Path, lost: str
) -> None:
    copy = Path(shutil.copytree(small_run.path("localizer"), tmp_path / "copy"))
    (copy / lost).unlink()
    message = refusal(copy, conf, tmp_path / "run")
    assert str(copy) in message
    assert "no localizer there" in message or f"{lost}: no such file" in message
    assert not (tmp_path / "run").exists()


def test_a_run_or_a_localizer_of_another_version_is_refused(
    small_run: RunDir, conf: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(small_run.path("localizer"), tmp_path / "copy"))
    facts = json.loads((copy / "localizer.json").read_text())
    (copy / "localizer.json").write_text(json.dumps(facts | {"version": "0.0.1", "grid": 1}))
    message = refusal(copy, conf, tmp_path / "run")
    assert "localizer.json: not of this version of sensloc but of 0.0.1: use that one" in message
    older = {name: value for name, value in facts.items() if name != "methods"}
    (copy / "localizer.json").write_text(json.dumps(older))
    assert "name its run instead" in refusal(copy, conf, tmp_path / "run")
    run = copied(small_run, tmp_path / "fitted")
    record = run.facts()
    record["config"]["fit"]["unheard"] = 1
    run.write("run.json", json.dumps(record))
    message = refusal(run.url, conf, tmp_path / "run")
    assert "run.json: not of this version of sensloc: use the one that made it" in message
    assert "unheard" in message


def test_other_weights_are_refused_before_the_maps_are_made(
    small_run: RunDir, conf: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(small_run.path("localizer"), tmp_path / "copy"))
    facts = json.loads((copy / "localizer.json").read_text())
    (copy / "localizer.json").write_text(json.dumps(facts | {"weights": "0" * 32}))
    assert "weights are not those of the run" in refusal(copy, conf, tmp_path / "run")
    assert not RunDir.found(str(tmp_path / "run")).files("sensitivity")


def test_another_fitted_run_is_refused_in_the_same_place(
    small_run: RunDir, elsewhere: RunDir, conf: Path, tmp_path: Path
) -> None:
    other = copied(small_run, tmp_path / "fitted")
    other.write("methods/constant_tuned.npz", other.read("methods/constant_mean.npz"))
    fitted = FittedRun.read(other.url)
    with pytest.raises(RunError, match="was begun with another fitted run"):
        judge(RunDir.open(fitted.config_on(str(conf), None, elsewhere.url)), fitted)


def test_what_is_the_fitted_runs_cannot_be_changed(
    small_run: RunDir, conf: Path, tmp_path: Path
) -> None:
    message = refusal(small_run.url, conf, tmp_path / "run", "--set=evaluate.iou=0.7")
    assert "--set evaluate.iou=0.7: [evaluate] is that of the fitted run" in message


def test_a_place_that_cannot_be_written_to_is_one_message(
    small_run: RunDir, conf: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    message = refusal(small_run.url, conf, tmp_path / "file" / "run")
    assert f"{tmp_path}/file/run" in message
    assert "choose a folder that you may read and write: --output" in message


def test_a_folder_for_it_must_be_named(small_run: RunDir, conf: Path) -> None:
    done = sensloc("evaluate", small_run.url, str(conf))
    assert done.exit_code == 1
    assert "name a folder or URL for the evaluation: --output" in done.output


def test_errors_have_no_part_in_the_counts(elsewhere: RunDir) -> None:
    stage = elsewhere.stages()["evaluate"]
    assert (stage["test_images"], stage["test_errors"]) == (IMAGES - 1, 1)
    errors = pq.read_table(elsewhere.path("manifest"))["error"]
    assert pc.sum(pc.is_valid(errors)).as_py() == 1
