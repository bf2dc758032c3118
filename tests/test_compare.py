"""The comparison on a real, local Ray: every method on the same images, resumable, honest."""

from pathlib import Path

import duckdb
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import SECTION, copy_of, new_bucket

from sensloc.baselines import objectness
from sensloc.baselines.colocalization import Colocalization
from sensloc.comparison.colocalize import padded
from sensloc.comparison.compare import compare
from sensloc.comparison.fit import METHODS, choices_of
from sensloc.comparison.less import LINEAR
from sensloc.comparison.maps import MAPS
from sensloc.comparison.subsets import subsets_of
from sensloc.config import Compare
from sensloc.engine import cluster
from sensloc.errors import ClassifierError
from sensloc.images.decode import decode
from sensloc.methods import catalogue
from sensloc.methods.constant import ConstantBox
from sensloc.methods.proposal import FirstProposal, proposed
from sensloc.rows import vectors
from sensloc.scoring import paired
from sensloc.scoring.accuracy import accuracy
from sensloc.stages.evaluate import predict
from sensloc.stages.fit import fit_linear, fitted_methods, load_methods
from sensloc.stages.network import map_maker
from sensloc.store.run import RunDir, RunError

pytestmark = pytest.mark.usefixtures("cluster")


def rows_of(run: RunDir, stage: str, split: str | None = None) -> pa.Table:
    return cluster.load(run, run.files(stage), None, split).sort_by("image_id")


def table_of(run: RunDir, name: str = "table") -> pa.Table:
    return pq.read_table(run.path(f"compare/{name}.parquet"), filesystem=run.arrow)


def corloc_of(run: RunDir) -> dict[str, float]:
    made = table_of(run)
    return dict(zip(made["method"].to_pylist(), made["corloc"].to_pylist(), strict=True))


# --------------------------------------------------------------------------- the whole


def test_every_method_has_one_row_per_test_image(compared: RunDir, small_run: RunDir) -> None:
    predictions = pa.concat_tables(
        [pq.read_table(file) for file in compared.files("compare/predictions")]
    )
    ids = set(rows_of(small_run, "sensitivity", "test")["image_id"].to_pylist())
    methods = set(predictions["method"].to_pylist())
    assert (
        methods == set(catalogue.with_twins(compared.config.compared)) == set(corloc_of(compared))
    )
    for method in methods:
        mine = predictions.filter(pc.equal(predictions["method"], method))
        assert len(mine) == len(ids) == 50
        assert set(mine["image_id"].to_pylist()) == ids
        assert mine["error"].null_count == 50
        boxes = vectors(mine, "box")
        assert ((boxes >= 0) & (boxes <= 1)).all()
        assert (boxes[:, :2] <= boxes[:, 2:]).all()


def test_the_main_runs_methods_predict_the_same_here(compared: RunDir, small_run: RunDir) -> None:
    there, here = (rows_of(small_run, "predictions"), rows_of(compared, "compare/predictions"))
    for method in set(there["method"].to_pylist()):
        a, b = (rows.filter(pc.equal(rows["method"], method)) for rows in (there, here))
        assert a.select(["image_id", "box", "iou", "correct"]).equals(
            b.select(["image_id", "box", "iou", "correct"])
        )


def test_the_ceilings_are_above_and_the_controls_below(compared: RunDir) -> None:
    corloc = corloc_of(compared)
    among = ("objectness", "proposal_random", "colocalization_cnn", "colocalization_sift")
    assert all(corloc["proposal_best"] >= corloc[name] for name in among)
    assert corloc["perfect_mask"] > 80
    # 50 images: two shares of about a third differ by less than 30 points, 99.8 times in 100
    assert abs(corloc["random_network"] - corloc["constant_mean"]) < 30
    assert abs(corloc["permuted_map"] - corloc["constant_mean"]) < 30


def test_the_table_says_what_the_predictions_say(compared: RunDir) -> None:
    made = {row["method"]: row for row in table_of(compared).to_pylist()}
    judged = rows_of(compared, "compare/predictions").to_pandas()
    for method, mine in judged.groupby("method"):
        row = made[method]
        assert row["corloc"] == pytest.approx(100 * mine.correct.mean())
        assert row["corloc_70"] == pytest.approx(100 * (mine.iou >= 0.7).mean())
        assert row["top1"] == pytest.approx(100 * (mine.correct & mine.recognised).mean())
        assert row["ms_per_image"] is None or row["ms_per_image"] > 0
    assert made["objectness"]["paper"] == 37.42
    assert made["smoothgrad"]["paper"] is None
    assert made["sensitivity"]["verdict"] is None
    assert made["perfect_mask"]["verdict"] == "better"
    assert made["perfect_mask"]["ms_per_image"] is None
    assert made["cam_threshold"]["max_box_acc_v2"] > 0
    assert made["smoothgrad"]["n_train"] == SECTION.train
    assert made["constant_mean"]["n_train"] == 299


def test_the_outputs_open_in_the_usual_tools(compared: RunDir) -> None:
    best = duckdb.sql(
        f"SELECT method FROM '{compared.url}/compare/table.csv' ORDER BY corloc DESC LIMIT 1"
    ).fetchall()
    assert best == [("perfect_mask",)] or best == [("proposal_best",)]
    for name in ("differences", "breakdown", "labels", "unseen"):
        found = duckdb.sql(f"SELECT count(*) FROM '{compared.url}/compare/{name}.parquet'")
        assert found.fetchall()[0][0] > 0
    page = compared.read("compare/table.md").decode()
    for name in compared.config.compared:
        assert f"| {catalogue.title(name)} |" in page


def test_the_runs_json_says_what_was_chosen(compared: RunDir) -> None:
    chosen = compared.facts()["stages"]["compare"]["chosen"]
    assert chosen["cam_threshold"]["threshold"] > 0
    assert chosen["smoothgrad"]["n_validation"] == SECTION.validation
    assert chosen["colocalization_cnn"]["mu"] == 0.4
    assert set(chosen) == set(corloc_of(compared))


# --------------------------------------------------------------------------- resume


@pytest.fixture(scope="module")
def stored(small_run: RunDir, object_store: tuple[str, int]) -> RunDir:
    """Compare two methods of the small run on an object store."""
    bucket = new_bucket()
    few = {"methods": ("sensitivity", "cam_threshold"), "train": 10}
    few |= {"label_counts": (1,), "label_draws": 1, "speed_rounds": 0}
    changes = {"output": f"{bucket}/run", "compare": SECTION.model_copy(update=few)}
    fsspec.filesystem("s3").put(small_run.url, f"{bucket}/run", recursive=True)
    run = RunDir.open(small_run.config.model_copy(update=changes))
    compare(run)
    return run


def test_a_comparison_on_an_object_store_has_the_rows_of_a_local_one(
    stored: RunDir, compared: RunDir
) -> None:
    there, here = rows_of(stored, "compare/predictions"), rows_of(compared, "compare/predictions")
    names = catalogue.with_twins(stored.config.compared)
    assert set(there["method"].to_pylist()) == set(names)
    for name in names:
        rows, expected = (t.filter(pc.equal(t["method"], name)) for t in (there, here))
        assert len(rows) == 50
        assert rows.equals(expected), name


def test_what_is_missing_is_made_again_and_nothing_else(stored: RunDir) -> None:
    files = stored.filesystem
    stages = ("compare/proposals", "compare/maps", "compare/predictions")
    lost = [stored.files(stage)[1] for stage in stages]
    kept = {
        file: files.modified(file)
        for stage in stages
        for file in stored.files(stage)
        if file not in lost
    }
    before = {file: pq.read_table(file, filesystem=stored.arrow) for file in lost}
    names = ("differences", "breakdown", "labels", "unseen")
    tables = {name: table_of(stored, name) for name in names}
    whole = table_of(stored)
    assert whole["ms_per_image"].null_count == len(whole), "no method is timed"
    files.rm(lost)
    compare(stored)
    for file, rows in before.items():
        assert pq.read_table(file, filesystem=stored.arrow).equals(rows), file
    files.invalidate_cache()
    assert {file: files.modified(file) for file in kept} == kept
    assert table_of(stored).equals(whole)
    assert {name: table_of(stored, name) for name in names} == tables


def test_another_comparison_is_refused_by_name(compared: RunDir, tmp_path: Path) -> None:
    other = SECTION.model_copy(update={"proposals": 5, "speed_rounds": 2})
    run = copy_of(compared, tmp_path / "run", other)
    with pytest.raises(
        RunError, match=r"another comparison \(what differs: compare\.proposals: 8 there, 5 here\)"
    ):
        compare(run)


def test_what_a_network_cannot_do_is_said_once(small_run: RunDir, tmp_path: Path) -> None:
    section = Compare(methods=("gradcam_threshold",), gradcam_layer="nowhere")
    run = copy_of(small_run, tmp_path / "run", section)
    with pytest.raises(ClassifierError, match="no layer 'nowhere' with places"):
        compare(run)
    assert not run.finished("compare")


# --------------------------------------------------------------------------- laws


def test_maps_equal_the_plain_functions(compared: RunDir) -> None:
    rows = rows_of(compared, MAPS, "test").slice(0, 5)
    pixels = np.stack(
        [decode(Path(uri).read_bytes(), 64).pixels for uri in rows["uri"].to_pylist()]
    )
    names = ("smoothgrad", "integrated", "random", "cam", "gradcam")
    seen = map_maker(compared, names, "cpu")(pixels, np.asarray(rows["class_index"]))
    for name in names:
        found, plain = vectors(rows, f"map_{name}"), seen.maps[name]
        assert found.shape == plain.values.shape == (5, plain.height * plain.width)
        np.testing.assert_allclose(found, plain.values, atol=2e-3)  # threads and rounding


def test_proposals_are_the_objectness_measures(compared: RunDir) -> None:
    model = objectness.Objectness.load(compared.at("compare/objectness.json"))
    for row in rows_of(compared, MAPS, "test").slice(0, 3).to_pylist():
        pixels = decode(Path(row["uri"]).read_bytes(), 64).pixels
        seed = objectness.image_seed(row["image_id"])
        boxes, scores = objectness.proposals(pixels, model, SECTION.proposals, seed)
        assert np.array_equal(np.array(row["proposals"], np.float32), boxes.astype(np.float32))
        assert np.array_equal(np.array(row["objectness"], np.float32), scores.astype(np.float32))


def test_a_class_is_localized_as_by_the_plain_function(compared: RunDir) -> None:
    rows = rows_of(compared, MAPS)
    rows = rows.filter(pc.equal(rows["wnid"], "3"))
    boxes = padded(proposed(rows))
    features = padded(
        [
            np.array(flat, np.float32).reshape(len(one), -1)
            for flat, one in zip(
                rows["box_features"].to_pylist(), rows["proposals"].to_pylist(), strict=True
            )
        ]
    )
    prior = padded([np.array(one) for one in rows["objectness"].to_pylist()])
    made = rows_of(compared, "compare/colocalization_cnn")
    made = made.filter(pc.equal(made["wnid"], "3"))
    assert made["image_id"].equals(rows["image_id"])
    chosen = np.array(made["chosen"].to_pylist())
    for i, lam in enumerate(SECTION.lams):
        model = Colocalization(kernel="cosine", gamma="median")
        ((choices, _),) = model.path(features, prior, boxes, [(0.4, lam)])
        assert np.array_equal(choices, chosen[:, i])


def test_learning_from_all_is_the_runs_own_map(compared: RunDir) -> None:
    counts, halves = subsets_of(compared)
    subsets = [counts[-1], *halves]
    whole, first, second = fit_linear(compared, "sensitivity", ("map",), subsets)
    own = fitted_methods(compared)
    for name, box in (("sensitivity", whole.plain), ("sensitivity_calibrated", whole.calibrated)):
        assert np.array_equal(box.linear.coef_, own[name].method.linear.coef_)
        assert box.factors == own[name].method.factors
    assert whole.mean == own["constant_mean"].method
    assert first.sums.n + second.sums.n == whole.sums.n == 299
    assert not np.array_equal(first.plain.linear.coef_, second.plain.linear.coef_)


def test_every_method_is_on_disk_whole(compared: RunDir) -> None:
    """A file holds all that its method needs: what it predicts is what the comparison says."""
    rows = rows_of(compared, MAPS, "test")
    methods = load_methods(compared, catalogue.with_twins(compared.config.compared), METHODS)
    for column, chosen in choices_of(compared, methods).items():
        index = [chosen[image_id] for image_id in rows["image_id"].to_pylist()]
        rows = rows.append_column(column, pa.array(index))
    predictions = rows_of(compared, "compare/predictions")
    chosen = compared.facts()["stages"]["compare"]["chosen"]
    for name, fitted in methods.items():
        mine = predictions.filter(pc.equal(predictions["method"], name))
        assert np.array_equal(vectors(mine, "box"), fitted.predict(rows).astype(np.float32)), name
        assert fitted.facts == chosen[name]


def test_label_counts_are_what_they_say_and_nested_in_each_draw(compared: RunDir) -> None:
    labels = table_of(compared, "labels").to_pandas()
    sizes = labels.drop_duplicates(["per_class", "draw"]).set_index("per_class").n_train
    assert (sizes.loc[1] == 10).all()
    assert (sizes.loc[5] == 50).all()
    section = SECTION.model_copy(update={"label_draws": 2})
    run = RunDir(compared.url, compared.config.model_copy(update={"compare": section}))
    counts, _ = subsets_of(run)
    train = rows_of(compared, "sensitivity", "train")
    drawn = {(subset.per_class, subset.draw): subset(train, "train") for subset in counts}
    for draw in (0, 1):
        assert (drawn[1, draw] <= drawn[5, draw]).all()
    assert (drawn[5, 0] != drawn[5, 1]).any()
    assert drawn[None, 0].all()


def test_the_foreground_is_learned_from_less_as_the_linear_map_is(compared: RunDir) -> None:
    labels = table_of(compared, "labels").to_pylist()
    sizes = {
        method: [(row["per_class"], row["n_train"]) for row in labels if row["method"] == method]
        for method in ("sensitivity", "foreground")
    }
    assert sizes["foreground"] == sizes["sensitivity"]
    unseen = table_of(compared, "unseen").to_pylist()
    tested = [(row["method"], row["tested_on"], row["n_images"]) for row in unseen]
    first, second = (n for method, on, n in tested if method == "foreground" and on != "both")
    assert first + second == 50
    assert {method for method, *_ in tested} == {*LINEAR, "foreground"}
    whole = next(r for r in labels if r["method"] == "foreground" and r["per_class"] is None)
    judged = table_of(compared).filter(pc.equal(table_of(compared)["method"], "foreground"))
    assert whole["corloc"] == judged["corloc"][0].as_py(), "all there is: the run's own"


def test_a_group_of_classes_is_the_configs_or_a_half(compared: RunDir) -> None:
    _, (first, second) = subsets_of(compared)
    assert len(first.limits["train"]) == len(second.limits["train"]) == 5
    wnids = sorted(first.limits["train"])[:2]
    for wanted, message in ((wnids, None), (["n0"], "names none of the run's classes")):
        section = SECTION.model_copy(update={"unseen": tuple(wanted)})
        run = RunDir(compared.url, compared.config.model_copy(update={"compare": section}))
        if message is None:
            _, (named, rest) = subsets_of(run)
            assert sorted(named.limits["train"]) == wnids
            assert len(rest.limits["train"]) == 8
        else:
            with pytest.raises(RunError, match=message):
                subsets_of(run)


def test_a_method_without_what_it_reads_has_an_error_row_and_is_wrong(compared: RunDir) -> None:
    rows = rows_of(compared, MAPS, "test").slice(0, 4)
    nothing = pa.array([None, *rows["proposals"].to_pylist()[1:]], rows["proposals"].type)
    rows = rows.set_column(rows.column_names.index("proposals"), "proposals", nothing)
    methods = {"objectness": FirstProposal(), "constant_mean": ConstantBox((0.2, 0.2, 0.8, 0.8))}
    made = predict(rows, methods, 0.5)
    failed = made.filter(pc.is_valid(made["error"])).to_pylist()
    assert [(row["method"], row["error"]) for row in failed] == [("objectness", "no proposals")]
    assert failed[0]["box"] is None
    judged = paired.Judged.from_table(made, list(methods))
    said = accuracy(judged, 100, 0).to_pylist()
    assert [row["n_errors"] for row in said] == [1, 0]
    assert [row["n_images"] for row in said] == [4, 4]
