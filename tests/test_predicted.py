"""A run and its comparison of each image's predicted class, in bfloat16, by small units.

The network is the small run's, and so are the scenes.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import small_config

from sensloc.comparison.compare import compare
from sensloc.config import Compare
from sensloc.errors import ClassifierError
from sensloc.heatmaps import PREDICTED
from sensloc.heatmaps.maker import MapMaker
from sensloc.images.decode import decode
from sensloc.rows import vectors
from sensloc.stages import accuracy
from sensloc.stages.fit import fit
from sensloc.stages.manifest import manifest
from sensloc.stages.network import map_maker, require_same_weights
from sensloc.stages.sensitivity import _tally, sensitivity
from sensloc.store.passes import CHOSEN, batch_size_of, precision_of
from sensloc.store.run import RunDir, RunError

pytestmark = pytest.mark.usefixtures("cluster")

SECTION = Compare(
    methods=("sensitivity", "cam_threshold", "random_network"), train=60, validation=15,
    label_counts=(1,), label_draws=1, speed_rounds=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def predicted(small_run: RunDir, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Make and compare the run of 120 of the scenes, in units of 16, one batch each."""
    config = small_config(
        tmp_path_factory.mktemp("predicted"), root=small_run.config.dataset.root,
        rows_per_block=20,
    )  # fmt: skip
    changes = {"label": "predicted", "precision": "bfloat16"}
    run = RunDir.open(config.model_copy(update={
        "dataset": config.dataset.model_copy(update={"n_images": 120}),
        "sensitivity": config.sensitivity.model_copy(update=changes),
        "foreground": config.foreground.model_copy(update={"looks": 0}),
        "compare": SECTION,
    }))  # fmt: skip
    manifest(run)
    shutil.copy(small_run.path("classifier.pt"), run.path("classifier.pt"))
    sensitivity(run)
    fit(run)
    compare(run)
    return run


def rows_of(run: RunDir, stage: str) -> pa.Table:
    tables = [pq.read_table(file) for file in run.files(stage)]
    return pa.concat_tables(tables).sort_by("image_id")


def test_maps_are_of_the_predicted_class(predicted: RunDir) -> None:
    """In the run, and in the comparison under a random network."""
    make = map_maker(predicted, ["gradient"], "cpu")
    rows = rows_of(predicted, "sensitivity")
    assert len(rows) == 120
    assert rows["error"].null_count == 120
    wrong = np.asarray(rows["predicted_index"]) != np.asarray(rows["class_index"])
    assert wrong.any()
    some = rows.slice(0, 16)
    pixels = np.stack(
        [decode(Path(uri).read_bytes(), 64).pixels for uri in some["uri"].to_pylist()]
    )
    seen = make(pixels, np.full(16, PREDICTED))
    assert np.array_equal(seen.predicted, np.asarray(some["predicted_index"]))
    np.testing.assert_allclose(vectors(some, "map"), seen.maps["gradient"].values, atol=0.01)
    np.testing.assert_allclose(np.asarray(some["score"]), seen.score, rtol=0.01, atol=0.01)


def test_bfloat16_is_near_float32_where_the_class_is_the_same(
    predicted: RunDir, small_run: RunDir
) -> None:
    columns = ["image_id", "map", "predicted_index", "class_index"]
    rows = rows_of(predicted, "sensitivity").select(columns).to_pandas()
    exact = rows_of(small_run, "sensitivity").select(columns).to_pandas()
    both = rows.merge(exact, on="image_id", suffixes=("", "_exact"))
    same = both[both.predicted_index == both.class_index_exact]
    assert len(same) >= 5
    near = [np.abs(a - b).mean() for a, b in zip(same["map"], same["map_exact"], strict=True)]
    assert np.median(near) < 0.05
    assert max(near) > 0, "another precision"


def test_how_far_bfloat16_is_from_float32_is_recorded_and_bounded(
    predicted: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    deviation = predicted.stages()["sensitivity"]["deviation"]
    assert deviation["images"] == accuracy.IMAGES
    assert 0 < deviation["mean"] <= deviation["worst"]
    strict = predicted.config.sensitivity.model_copy(update={"max_deviation": 1e-6})
    run = RunDir(predicted.url, predicted.config.model_copy(update={"sensitivity": strict}))
    monkeypatch.setattr(accuracy, "by_actor", lambda run, function: function(run))
    monkeypatch.setattr(accuracy, "IMAGES", 2)
    with pytest.raises(RunError, match=r"on 2 images .* float32 \(relative L2\), over sensitiv"):
        accuracy.checked(run)


def in_the_fastest(predicted: RunDir, folder: Path) -> RunDir:
    """Begin the run of ``predicted`` in another folder, as far as the maps, in the fastest way."""
    config = predicted.config
    run = RunDir.open(config.model_copy(update={
        "output": str(folder),
        "sensitivity": config.sensitivity.model_copy(
            update={"precision": "fastest", "batch_size": "fastest"}
        ),
        "resources": config.resources.model_copy(update={"rows_per_block": 64}),
    }))  # fmt: skip
    manifest(run)
    shutil.copy(predicted.path("classifier.pt"), run.path("classifier.pt"))
    return run


def test_the_fastest_arithmetic_is_measured_once_and_stays_the_runs(
    predicted: RunDir, tmp_path: Path
) -> None:
    run = in_the_fastest(predicted, tmp_path / "run")
    sensitivity(run)
    record = json.loads(run.read(CHOSEN))
    arithmetics = record["measured"]["precision"]
    assert set(arithmetics) == {"float32", "bfloat16"}
    assert arithmetics["float32"]["deviation"] == 0
    assert record["precision"] == accuracy.fastest(arithmetics, 0.25)
    assert str(record["batch_size"]) in record["measured"]["batch_size"]
    stage = run.stages()["sensitivity"]
    assert stage["passes"] == record
    assert stage["of"]["precision"] == precision_of(run) == record["precision"]
    assert stage["of"]["batch_size"] == batch_size_of(run) == record["batch_size"]
    assert map_maker(run, ["gradient"], "cpu").batch_size == record["batch_size"]

    other = in_the_fastest(predicted, tmp_path / "other")
    as_predicted = {"precision": "bfloat16", "batch_size": batch_size_of(predicted)}
    other.write(CHOSEN, json.dumps(record | as_predicted))
    sensitivity(other)
    columns = ["image_id", "map", "map_scale", "score"]
    wanted = rows_of(predicted, "sensitivity").select(columns)
    assert rows_of(other, "sensitivity").select(columns).equals(wanted)
    for name, value in {"precision": "float32", "batch_size": 64}.items():
        other.write(CHOSEN, json.dumps(record | as_predicted | {name: value}))
        with pytest.raises(RunError, match=name):
            require_same_weights(other)


def test_a_batch_is_as_large_as_pays_and_as_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    milliseconds = {16: 10.0, 32: 5.0, 64: 4.5, 128: 4.4, 256: 1.0}
    held = 256

    def times(makers: dict[str, MapMaker], *_: Any) -> dict[str, float]:
        if max(make.batch_size for make in makers.values()) > held:
            raise ClassifierError("no room")
        return {name: milliseconds[make.batch_size] for name, make in makers.items()}

    def chosen(most: int) -> tuple[int, dict[str, float | None]]:
        return accuracy.batches(
            MapMaker((), {}, (), (), 32), np.zeros((1, 8, 8, 3), np.uint8), most
        )

    monkeypatch.setattr(accuracy, "_times", times)
    assert chosen(256) == (64, {"16": 10, "32": 5, "64": 4.5, "128": 4.4}), "128 gains too little"
    assert chosen(63) == (32, {"16": 10, "32": 5}), "no more than a unit has"
    assert chosen(9) == (9, {}), "there is no choice"
    held = 32
    assert chosen(256) == (32, {"16": 10, "32": 5, "64": None})


def test_nothing_is_measured_without_an_image(
    predicted: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "IMAGES", 0)
    with pytest.raises(RunError, match="manifest: no image can be read"):
        accuracy.measure(predicted)


def test_float32_is_the_fastest_where_no_other_is_near(
    predicted: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much faster the others are: what is too far away is not timed."""
    monkeypatch.setattr(accuracy, "HOPELESS", 1.0)
    monkeypatch.setattr(accuracy, "IMAGES", 2)
    strict = {"max_deviation": 1e-9, "precision": "fastest"}
    strict_too = predicted.config.sensitivity.model_copy(update=strict)
    run = RunDir(predicted.url, predicted.config.model_copy(update={"sensitivity": strict_too}))
    chosen = accuracy.measure(run)
    assert chosen["measured"]["precision"]["bfloat16"]["ms"] is None
    assert chosen["precision"] == "float32"
    assert chosen["batch_size"] == run.config.sensitivity.batch_size, "that was not asked for"
    assert set(chosen["measured"]) == {"precision"}


def test_top_1_is_of_the_images_whose_class_is_known() -> None:
    rows = pa.table({
        "split": ["train", "train", "train", "test"],
        "class_index": pa.array([1, 2, None, None], pa.int64()),
        "predicted_index": pa.array([1, 1, 1, 1], pa.int64()),
        "error": pa.nulls(4, pa.string()),
    })  # fmt: skip
    counted = _tally(rows)
    assert (counted["train"], counted["train right"], counted["test"]) == (2, 1, 0)


def test_the_fastest_is_chosen_among_the_accurate() -> None:
    measured = {
        "float32": {"deviation": 0.0, "ms": 3.0},
        "tf32": {"deviation": 0.1, "ms": 2.0},
        "bfloat16": {"deviation": 0.3, "ms": 1.0},
        "slow": {"deviation": 0.0, "ms": None},
    }
    assert accuracy.fastest(measured, 0.25) == "tf32"
    assert accuracy.fastest(measured, 0.3) == "bfloat16"
    assert accuracy.fastest(measured, 0.01) == "float32"


def test_maps_are_compared_by_the_relative_length_of_their_difference() -> None:
    wanted = np.array([[3.0, 4.0], [3.0, 4.0], [0.0, 0.0], [0.0, 0.0], [3.0, 4.0]])
    maps = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [np.nan, 4.0]])
    assert accuracy.relative(maps, wanted) == [0, 1, 0, np.inf, np.inf]


def test_the_comparison_judges_each_test_image_once(predicted: RunDir) -> None:
    tested = rows_of(predicted, "sensitivity").to_pandas().query("split == 'test'")
    judged = rows_of(predicted, "compare/predictions").to_pandas()
    assert judged.error.isna().all()
    for _, mine in judged.groupby("method"):
        assert sorted(mine.image_id) == sorted(tested.image_id)
    assert set(judged.method) == {
        "sensitivity", "sensitivity_calibrated", "cam_threshold",
        "random_network", "random_network_calibrated",
    }  # fmt: skip
    assert len(predicted.files("compare/maps")) == 8
