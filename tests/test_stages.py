"""The stages on a real, local Ray: they equal the plain functions, and lose nothing."""

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
import urllib.request
from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import ray
import torch
from conftest import ROOT, copied, small_config
from PIL import Image

from sensloc.boxes import iou
from sensloc.config import load_config
from sensloc.dice import keys
from sensloc.engine import cluster
from sensloc.errors import DatasetError
from sensloc.images.decode import decode
from sensloc.methods import constant, linear
from sensloc.methods.least_squares import NormalEquations
from sensloc.report.status import Code, status
from sensloc.rows import true_boxes, vectors
from sensloc.scoring.counts import count, groups
from sensloc.stages.classifier import classifier
from sensloc.stages.evaluate import predict
from sensloc.stages.fit import fit, fitted_methods
from sensloc.stages.manifest import INSPECTED, manifest
from sensloc.stages.network import map_maker, require_same_weights
from sensloc.stages.sensitivity import sensitivity
from sensloc.stages.whole_run import run_all
from sensloc.store.run import RunDir, RunError

pytestmark = pytest.mark.usefixtures("cluster")


def table(run: RunDir, stage: str) -> pa.Table:
    """Read a stage's table, sorted by image (and method)."""
    rows = pa.concat_tables([pq.read_table(file) for file in run.files(stage)])
    by = [name for name in ("image_id", "method", "scope", "wnid") if name in rows.column_names]
    return rows.sort_by([(name, "ascending") for name in by])


def rows_of(run: RunDir, split: str) -> pa.Table:
    rows = table(run, "sensitivity")
    return rows.filter(pc.equal(rows["split"], split))


# --------------------------------------------------------------------------- laws


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's malloc")
def test_workers_keep_the_memory_that_they_free() -> None:
    @ray.remote(num_cpus=0.1)
    def faults() -> int:
        """Take and free 64 MB, 16,384 pages, a hundred times.

        Now and then something small takes a little of the free block, and a new one is made.
        """
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(100):
            torch.ones(1 << 24)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    of_new_pages_each_time = 100 * 16_384
    assert ray.get(faults.remote()) < 0.3 * of_new_pages_each_time


@pytest.mark.cpu
def test_maps_equal_the_plain_function_row_by_row(small_run: RunDir) -> None:
    make = map_maker(small_run, ["gradient"], "cpu")
    rows = table(small_run, "sensitivity").slice(100, 40)
    for row in rows.to_pylist():
        pixels = decode(Path(row["uri"]).read_bytes(), 64).pixels[None]
        seen = make(pixels, np.array([row["class_index"]]))
        maps = seen.maps["gradient"]
        np.testing.assert_allclose(maps.values[0], row["map"], atol=2e-3)  # threads and rounding
        assert maps.scale[0] == pytest.approx(row["map_scale"], rel=1e-3)
        assert seen.score[0] == pytest.approx(row["score"], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_fit_is_bit_identical_for_any_number_of_shards(small_run: RunDir, workers: int) -> None:
    @ray.remote(num_cpus=0.25)
    def sums_of(rows: pa.Table) -> NormalEquations:
        return NormalEquations.from_batch(linear.features(rows, "l2"), linear.targets(rows))

    rows = rows_of(small_run, "train")
    shuffled = rows.take(np.random.default_rng(workers).permutation(len(rows)))
    size = -(-len(rows) // workers)
    shards = [shuffled.slice(i * size, size) for i in range(workers)]
    sums = reduce(NormalEquations.merge, ray.get([sums_of.remote(shard) for shard in shards]))
    fitted = fitted_methods(small_run)["sensitivity"].method.linear
    again = sums.solve(fitted.ridge)
    assert np.array_equal(again.coef_, fitted.coef_)
    assert np.array_equal(again.intercept_, fitted.intercept_)


def test_the_tuned_box_sees_so_many_images_at_most(
    small_run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rows_of(small_run, "train")
    assert json.loads(small_run.read("fit.json"))["constant_tuned_on"] == len(whole)
    monkeypatch.setattr(constant, "MOST_IMAGES", 100)
    copy = copied(small_run, tmp_path / "run")
    fit(copy)
    facts = json.loads(copy.read("fit.json"))
    drawn = keys(whole["image_id"].to_pylist(), 0) <= 100 / len(whole) * 2.0**64
    assert facts["constant_tuned_on"] == drawn.sum()
    assert 50 < drawn.sum() < 150
    truth = true_boxes(whole.filter(pa.array(drawn)))
    assert tuple(facts["constant_tuned"]) == constant.tuned(truth, copy.config.evaluate.iou).box


@pytest.mark.cpu
def test_sharded_fit_is_ridge_regression_on_all_rows(small_run: RunDir) -> None:
    from sklearn.linear_model import Ridge

    rows, fitted = (
        rows_of(small_run, "train"),
        fitted_methods(small_run)["sensitivity"].method.linear,
    )
    x, y = linear.features(rows, "l2"), linear.targets(rows)
    ridge = Ridge(alpha=fitted.ridge * len(x), solver="svd").fit(x, y)
    assert np.allclose(fitted.coef_, ridge.coef_, atol=1e-9)
    assert np.allclose(fitted.intercept_, ridge.intercept_, atol=1e-9)


@pytest.mark.cpu
def test_predictions_equal_the_plain_methods(small_run: RunDir) -> None:
    rows, predictions = rows_of(small_run, "test"), table(small_run, "predictions")
    for name, method in fitted_methods(small_run).items():
        judged = predictions.filter(pc.equal(predictions["method"], name))
        assert judged["image_id"].equals(rows["image_id"])
        boxes = method.predict(rows)
        np.testing.assert_allclose(vectors(judged, "box"), boxes, atol=1e-6)
        pairs = zip(boxes, true_boxes(rows), strict=True)
        best = np.array([iou(box, truth).max() for box, truth in pairs])
        np.testing.assert_allclose(judged["iou"], best, atol=1e-5)
        clear = np.abs(best - 0.5) > 1e-5
        assert np.array_equal(np.asarray(judged["correct"])[clear], (best >= 0.5)[clear])


@pytest.mark.cpu
def test_corloc_counts_the_predictions(small_run: RunDir) -> None:
    judged = table(small_run, "predictions").to_pandas()
    corloc = table(small_run, "corloc").to_pandas()
    for method, rows in judged.groupby("method"):
        overall = corloc[(corloc.method == method) & (corloc.scope == "overall")].iloc[0]
        assert overall.n_images == len(rows) == 50
        assert overall.n_correct == rows.correct.sum()
        assert overall.corloc == pytest.approx(100 * rows.correct.mean())
        assert overall.ci_low <= overall.corloc <= overall.ci_high
        of_method = corloc[corloc.method == method]
        per_class = of_method[of_method.scope == "class"].set_index("wnid")
        expected = 100 * rows.groupby("wnid").correct.mean()
        pd.testing.assert_series_equal(per_class.corloc, expected, check_names=False)
        mean = of_method[of_method.scope == "class mean"].iloc[0]
        assert mean.corloc == pytest.approx(expected.mean())


def test_an_image_with_an_error_is_in_the_predictions_and_in_no_count(small_run: RunDir) -> None:
    rows = rows_of(small_run, "test")
    reasons = pa.array(["broken"] * 3 + [None] * (len(rows) - 3), pa.string())
    broken = rows.set_column(rows.column_names.index("error"), "error", reasons)
    methods = fitted_methods(small_run)
    partial, whole = predict(broken, methods, 0.5), predict(rows, methods, 0.5)
    for name in methods:
        judged, sound = (t.filter(pc.equal(t["method"], name)) for t in (partial, whole))
        assert sorted(judged["image_id"].to_pylist()) == sorted(rows["image_id"].to_pylist())
        failed = judged.filter(pc.is_valid(judged["error"]))
        assert failed["image_id"].to_pylist() == rows["image_id"].to_pylist()[:3]
        for column in ("box", "iou", "correct"):
            assert failed[column].null_count == 3
        rest, sound = judged.filter(pc.is_null(judged["error"])), sound.slice(3)
        assert rest.select(["image_id", "method"]).equals(sound.select(["image_id", "method"]))
        np.testing.assert_allclose(rest["iou"], sound["iou"], atol=1e-5)
    counts = count(partial)
    for by, n in (("all", len(rows) - 3), ("left out", 3)):
        counted = groups(counts, by)
        assert [counted[name]["all"]["n_images"] for name in methods] == [n] * len(methods)


def test_every_table_names_its_config(small_run: RunDir) -> None:
    for stage in ("manifest", "sensitivity", "predictions", "corloc"):
        for file in small_run.files(stage):
            config_hash = pq.read_schema(file).metadata[b"sensloc.config_hash"].decode()
            assert config_hash == small_run.config.fingerprint


def test_splits_are_disjoint_and_stratified(small_run: RunDir) -> None:
    rows = table(small_run, "manifest").to_pandas()
    assert rows.image_id.is_unique
    assert len(rows) == 400
    assert rows.groupby("content").split.nunique().max() == 1
    shares = pd.crosstab(rows.wnid, rows.split, normalize="index")
    sizes = rows.groupby("wnid").size()
    assert ((shares["train"] - 0.75).abs() <= 1 / sizes).all()
    assert ((shares["test"] - 0.125).abs() <= 1 / sizes).all()


def test_a_finished_run_is_not_run_again_and_a_stage_run_twice_doubles_no_row(
    small_run: RunDir, tmp_path: Path
) -> None:
    run = RunDir(str(tmp_path / "copy"), small_run.config)
    shutil.copytree(small_run.path(""), run.path(""))
    before = run.read("run.json")
    summary = run_all(run)
    assert run.read("run.json") == before
    assert "sensitivity_calibrated" in summary
    sensitivity(run)
    assert table(run, "sensitivity").equals(table(small_run, "sensitivity"))
    with pytest.raises(RunError, match=r"config\.split\.seed: 0 there, 9 here"):
        RunDir.open(run.config.model_copy(update={
            "output": run.url, "split": run.config.split.model_copy(update={"seed": 9})
        }))  # fmt: skip


# --------------------------------------------------------------------------- resume


def cut_off(run: RunDir, stage: str) -> None:
    """Leave the run as if the driver had died in that stage: those after it had not begun."""
    record = run.facts()
    stages = list(record["stages"])
    for name in stages[stages.index(stage) + 1 :]:
        del record["stages"][name]
    for name in ("finished", "seconds"):
        del record["stages"][stage][name]
    run.write("run.json", json.dumps(record))


def marks(run: RunDir, stage: str) -> dict[str, tuple[int, int]]:
    """Return a mark of each file: one that is written again has another inode and time."""
    stats = ((file, os.stat(file)) for file in run.files(stage))
    return {file: (stat.st_ino, stat.st_mtime_ns) for file, stat in stats}


def told(name: str) -> dict[str, float]:
    """Return this project's metrics of the run of that name, as Prometheus would read them."""
    port = ray.nodes()[0]["MetricsExportPort"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    totals: dict[str, float] = {}
    for line in lines:
        if f'run="{name}"' in line:
            metric, value = line.partition("{")[0], float(line.rpartition(" ")[2])
            totals[metric] = totals.get(metric, 0) + value
    return totals


def test_a_stage_goes_on_with_the_units_that_are_missing(small_run: RunDir, tmp_path: Path) -> None:
    """It makes no other again, and Ray's metrics say how many rows it made."""
    run = copied(small_run, tmp_path / "copy")
    run = RunDir(run.url, run.config.model_copy(update={"name": "watched"}))
    cut_off(run, "sensitivity")
    files = run.files("sensitivity")
    redone = {files[1], files[3], files[4]}
    rows_redone = sum(pq.read_metadata(file).num_rows for file in redone)
    Path(files[1]).unlink()
    Path(files[3]).write_bytes(Path(files[3]).read_bytes()[:5000])  # a disk that lost its end
    other = pq.read_table(files[4]).replace_schema_metadata({"sensloc.config_hash": "another"})
    pq.write_table(other, files[4])
    Path(run.path("sensitivity/.000001.parquet.12345678.part")).write_bytes(b"PAR1")
    before = marks(run, "sensitivity")
    sensitivity(run)
    assert table(run, "sensitivity").equals(table(small_run, "sensitivity"))
    after = marks(run, "sensitivity")
    assert {file for file in files if after[file] != before.get(file)} == redone
    assert run.stages()["sensitivity"]["rows"] == 400
    assert run.stages()["sensitivity"]["attempts"] == 2
    names = {Path(file).name for file in run.filesystem.find(run.path("sensitivity"))}
    assert names == {Path(file).name for file in files}

    wanted = {"ray_sensloc_rows_total": rows_redone, "ray_sensloc_units_left": 0}
    for _ in range(60):
        if (metrics := told("watched")) == wanted:
            break
        time.sleep(0.5)
    assert metrics == wanted


def test_a_manifest_that_was_cut_off_fetches_no_image_twice(
    small_run: RunDir, tmp_path: Path
) -> None:
    config = small_config(tmp_path)
    run, attempts = RunDir.open(config), []

    def die(*_: object) -> None:
        attempts.append(marks(run, INSPECTED))
        raise OSError("the cluster is gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sensloc.stages.manifest.fit_split", die)
        with pytest.raises(OSError, match="gone"):
            manifest(run)
        Path(run.files(INSPECTED)[2]).unlink()
        kept = marks(run, INSPECTED)
        with pytest.raises(OSError, match="gone"):
            manifest(RunDir.open(small_config(tmp_path, rows_per_block=17)))
    assert attempts[0].keys() == attempts[1].keys(), "units keep their size"
    assert {file: attempts[1][file] for file in kept} == kept
    manifest(run)
    assert not run.exists("work")
    wanted = table(small_run, "manifest").drop_columns(["uri"])
    assert table(run, "manifest").drop_columns(["uri"]).equals(wanted)


def test_a_data_set_that_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    run = RunDir.open(small_config(tmp_path))
    record = {"begun": "", "attempts": 1, "of": {"data set's listing": "another"}, "kept": {}}
    with run.stage("classifier"):
        pass
    run.write("run.json", json.dumps(run.facts() | {"stages": {"manifest": record}}))
    with pytest.raises(RunError, match="data set's listing: 'another' there"):
        manifest(run)


def test_other_weights_are_refused_by_name(small_run: RunDir, tmp_path: Path) -> None:
    run = copied(small_run, tmp_path / "copy")
    cut_off(run, "sensitivity")
    state = torch.load(run.path("classifier.pt"), weights_only=True)
    name = next(iter(state))
    state[name] = state[name] + 1e-3
    torch.save(state, run.path("classifier.pt"))
    with pytest.raises(RunError, match=r"weights: '[0-9a-f]{32}' there"):
        sensitivity(run)
    assert table(run, "sensitivity").equals(table(small_run, "sensitivity"))


def test_another_kind_of_device_is_refused_by_name(small_run: RunDir, tmp_path: Path) -> None:
    run = copied(small_run, tmp_path / "copy")
    facts = run.facts()
    facts["stages"]["sensitivity"]["of"]["device"] = "NVIDIA H100"
    run.write("run.json", json.dumps(facts))
    with pytest.raises(RunError, match="device: 'NVIDIA H100' there, 'cpu' here"):
        require_same_weights(run)
    cut_off(run, "sensitivity")
    with pytest.raises(RunError, match="device: 'NVIDIA H100' there, 'cpu' here"):
        sensitivity(run)


def test_a_lost_row_stops_the_run(small_run: RunDir, tmp_path: Path) -> None:
    run = copied(small_run, tmp_path / "copy")
    cut_off(run, "sensitivity")
    file = run.files("sensitivity")[2]
    rows = pq.read_table(file)
    pq.write_table(rows.slice(1), file)
    with pytest.raises(RunError, match="does not hold every row of the manifest exactly once"):
        sensitivity(run)
    pq.write_table(pa.concat_tables([rows.slice(0, 1), rows.slice(0, 1), rows.slice(2)]), file)
    with pytest.raises(RunError, match="exactly once"):
        sensitivity(run)
    assert not run.finished("sensitivity")


def test_stages_want_their_predecessors(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"manifest is not complete: run `sensloc manifest` first"):
        sensitivity(RunDir.open(small_config(tmp_path)))


READ = """
import sys, duckdb, pandas as pd
run = sys.argv[1]
table = pd.read_parquet(f"{run}/sensitivity")
maps = duckdb.sql(
    f"select count(*), min(len(map)), max(map_scale) > 0 from '{run}/sensitivity/*.parquet'"
).fetchall()[0]
right = duckdb.sql(
    f"select method, avg(correct::int) from '{run}/predictions/*.parquet' group by 1"
).fetchall()
assert maps == (len(table), 64, True), maps
assert len(table["map"].iloc[0]) == 64 and len(table.boxes.iloc[0][0]) == 4
assert len(right) == 5
assert duckdb.sql(f"select * from '{run}/manifest/*.parquet'").fetchall()
assert duckdb.sql(f"select * from '{run}/corloc/*.parquet'").fetchall()
assert not any(name.split(".")[0] in ("ray", "sensloc") for name in sys.modules)
print("read")
"""


def test_duckdb_and_pandas_read_every_table_without_ray(small_run: RunDir) -> None:
    done = subprocess.run(
        [sys.executable, "-c", READ, small_run.path("")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "read", done.stderr


# --------------------------------------------------------------------------- bad input


def photographs(folder: Path, n: int = 24) -> list[str]:
    """Write small images of noise; return the lines of a CSV of their boxes."""
    rng = np.random.default_rng(0)
    lines = ["uri,label,x0,y0,x1,y1"]
    for i in range(n):
        pixels = rng.integers(0, 255, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"image_{i:02d}.jpg")
        lines.append(f"image_{i:02d}.jpg,{i % 2},8,8,40,40")
    return lines


TABLE = """
name = "table"
output = "{folder}/run"
[dataset]
layout = "table"
root = "{folder}"
[split]
train = 0.5
validation = 0.25
test = 0.25
[classifier]
source = "torchvision"
name = "resnet18"
classes = "imagenet1k"
input_size = 32
[foreground]
looks = 0
[sensitivity]
grid = 4
batch_size = 8
label = "{label}"
[resources]
actors = 1
"""


def table_run(folder: Path, lines: list[str], label: str = "predicted") -> RunDir:
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n")
    file = folder / "table.toml"
    file.write_text(TABLE.format(folder=folder, label=label))
    return RunDir.open(load_config(str(file)))


@pytest.fixture(scope="module")
def good_and_bad(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, RunDir]:
    """Run 24 photographs, and the same with some that are broken."""
    runs = []
    for name in ("good", "bad"):
        folder = tmp_path_factory.mktemp(name)
        lines = photographs(folder)
        lines[1:] = [line.replace(",0,", ",n01440764,", 1) for line in lines[1:]]
        lines[1:] = [line.replace(",1,", ",n01443537,", 1) for line in lines[1:]]
        if name == "bad":
            (folder / "image_03.jpg").write_bytes((folder / "image_03.jpg").read_bytes()[:700])
            (folder / "image_04.jpg").write_text("<html>404</html>")
            (folder / "image_05.jpg").unlink()
            lines[7] = "image_06.jpg,n01440764,8,8,8,40"
            lines[8] = "image_07.jpg,n01443537,8,8,400,40"
            lines[9] = "image_08.jpg,unicorn,8,8,40,40"
        run = table_run(folder, lines, label="truth")
        manifest(run)
        if name == "bad":
            Image.new("RGB", (64, 48)).save(folder / "image_09.jpg")
        sensitivity(run)
        runs.append(run)
    return runs[0], runs[1]


BAD = {
    3: "cannot decode JPEG",
    4: "not an image",
    5: "cannot read",
    6: "has no area",
    7: "is outside the 64 x 48 image",
    8: "class unicorn is not one of the classifier's",
    9: "has changed since the manifest was made",
}


def by_image(run: RunDir) -> pd.DataFrame:
    return table(run, "sensitivity").to_pandas().set_index("image_id")


def test_one_broken_image_costs_one_row_and_no_neighbour(
    good_and_bad: tuple[RunDir, RunDir],
) -> None:
    fine, broken = map(by_image, good_and_bad)
    assert fine.error.isna().all()
    errors = broken.error.dropna()
    assert len(broken) == 24
    assert set(errors.index) == {f"image_{i:02d}.jpg" for i in BAD}
    for i, reason in BAD.items():
        assert reason in errors[f"image_{i:02d}.jpg"]
        assert i == 8 or f"image_{i:02d}.jpg" in errors[f"image_{i:02d}.jpg"]
    assert broken["map"][errors.index].isna().all()
    rest = fine.index.difference(errors.index)
    for column in ("map", "map_scale", "score", "predicted_index"):
        assert all(
            np.array_equal(a, b)
            for a, b in zip(fine.loc[rest, column], broken.loc[rest, column], strict=True)
        )
    audit = json.loads(good_and_bad[1].read("audit.json"))
    assert audit["errors"] == 4
    assert len(audit["first_errors"]) == 4
    assert good_and_bad[1].facts()["stages"]["sensitivity"]["errors"] == len(BAD)


def test_an_image_that_changed_since_the_manifest_is_an_error_row(
    good_and_bad: tuple[RunDir, RunDir],
) -> None:
    error = by_image(good_and_bad[1]).error["image_09.jpg"]
    assert "image_09.jpg: has changed since the manifest was made" in error


def test_a_finished_run_is_complete_whatever_network_it_has(
    small_run: RunDir, good_and_bad: tuple[RunDir, RunDir]
) -> None:
    assert status(small_run).code == Code.COMPLETE
    run, _ = good_and_bad  # its network brings its weights
    classifier(run)
    assert run.finished("classifier")
    assert not run.exists("classifier.pt")


def test_nothing_usable_stops_with_a_reason(tmp_path: Path) -> None:
    lines = photographs(tmp_path)
    with pytest.raises(DatasetError, match="no image with a box"):
        manifest(table_run(tmp_path, lines[:1]))
    for file in tmp_path.glob("*.jpg"):
        file.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"all 24 images have errors.*the file is empty"):
        manifest(table_run(tmp_path, lines))


def test_n_images_takes_exactly_that_many(tmp_path: Path) -> None:
    run = table_run(tmp_path, photographs(tmp_path))
    dataset = run.config.dataset.model_copy(update={"n_images": 10})
    run = RunDir(str(tmp_path / "ten"), run.config.model_copy(update={"dataset": dataset}))
    manifest(run)
    assert len(table(run, "manifest")) == 10
    many = dataset.model_copy(update={"n_images": 25})
    with pytest.raises(DatasetError, match="n_images is 25, the data set has 24"):
        manifest(RunDir(str(tmp_path / "many"), run.config.model_copy(update={"dataset": many})))


def test_an_image_id_that_occurs_twice_stops(tmp_path: Path) -> None:
    wnids = ["n01443537", "n01629819"]
    for wnid in wnids:
        (tmp_path / "train" / wnid / "images").mkdir(parents=True)
        (tmp_path / "train" / wnid / f"{wnid}_boxes.txt").write_text("same.JPEG\t8\t8\t40\t40\n")
        Image.new("RGB", (64, 64)).save(tmp_path / "train" / wnid / "images" / "same.JPEG")
    (tmp_path / "wnids.txt").write_text("\n".join(wnids))
    (tmp_path / "words.txt").write_text("".join(f"{wnid}\tthing\n" for wnid in wnids))
    config = load_config(
        str(ROOT / "conf" / "tiny_imagenet.toml"),
        data=str(tmp_path),
        output=str(tmp_path / "run"),
    )
    dataset = config.dataset.model_copy(update={"parts": ("train",)})
    run = RunDir.open(config.model_copy(update={"dataset": dataset}))
    with pytest.raises(DatasetError, match=r"1 image_id\(s\) occur more than once: same: .*same"):
        manifest(run)


# --------------------------------------------------------------------------- an object store


def test_a_run_on_an_object_store_with_other_resources_equals_a_local_one(
    bucket: str, small_run: RunDir, tmp_path: Path
) -> None:
    resources = {"actors": 2, "rows_per_block": 37}
    root = small_run.config.dataset.root
    config = small_config(tmp_path, output=f"{bucket}/run", root=root, **resources)
    assert config.fingerprint == small_run.config.fingerprint, "resources are no part of it"
    stored = RunDir.open(config)
    run_all(stored)
    for stage, columns in {
        "sensitivity": ["image_id", "map", "map_scale", "boxes", "split"],
        "predictions": ["image_id", "method", "box", "iou"],
    }.items():
        by = [(name, "ascending") for name in ("image_id", "method") if name in columns]
        there = cluster.load(stored, stored.files(stage), columns).sort_by(by)
        assert there.equals(table(small_run, stage).select(columns))
    assert stored.read("fit.json") == small_run.read("fit.json")
