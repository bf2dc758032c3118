"""What an addition costs: other heat maps and another kind of network are a change of config."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import small_config

from sensloc.comparison.compare import compare
from sensloc.config import Compare
from sensloc.methods import catalogue
from sensloc.networks.timm_model import Timm
from sensloc.prediction.localizer import Localizer
from sensloc.stages.classifier import classifier
from sensloc.stages.evaluate import evaluate
from sensloc.stages.fit import fit, fitted_methods
from sensloc.stages.foreground import foreground
from sensloc.stages.localizer import localizer
from sensloc.stages.manifest import manifest
from sensloc.stages.sensitivity import sensitivity
from sensloc.store.run import RunDir

pytestmark = pytest.mark.usefixtures("cluster")

LITTLE = {"label_counts": (1,), "label_draws": 1, "speed_rounds": 0}


def table(run: RunDir, name: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in run.files(name)])


@pytest.fixture(scope="module")
def extended(small_run: RunDir, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Run 160 of the small run's scenes with its network and a second map in the fit; compare."""
    folder = tmp_path_factory.mktemp("extended")
    config, both = small_config(folder, root=small_run.config.dataset.root), ("gradient", "inner_4")
    methods = ("sensitivity", "layercam_8_threshold", "layercam_8_linear")
    changes = {
        "dataset": config.dataset.model_copy(update={"n_images": 160}),
        "sensitivity": config.sensitivity.model_copy(update={"maps": both}),
        "foreground": config.foreground.model_copy(update={"looks": 0}),
        "fit": config.fit.model_copy(update={"maps": both}),
        "compare": Compare(methods=methods, train=60, validation=20, **LITTLE),
    }
    run = RunDir.open(config.model_copy(update=changes))
    manifest(run)
    shutil.copy(small_run.path("classifier.pt"), run.path("classifier.pt"))
    for stage in (sensitivity, fit, evaluate, localizer, compare):
        stage(run)
    return run


def test_every_heat_map_has_its_rows_in_the_comparison(extended: RunDir) -> None:
    """LayerCAM is sensloc/heatmaps/layercam.py and a line of the registry, and nothing else."""
    assert {"layercam_8_threshold", "layercam_8_linear"} <= set(catalogue.METHODS)
    rows = pq.read_table(extended.path("compare/table.parquet")).to_pylist()
    titles = {row["method"]: row["title"] for row in rows}
    assert titles["layercam_8_threshold"] == "LayerCAM at stride 8, threshold"
    assert titles["layercam_8_linear_calibrated"] == "LayerCAM at stride 8, linear map, calibrated"
    assert all(row["n_errors"] == 0 for row in rows)
    maps = table(extended, "compare/maps")
    assert maps.schema.field("map_layercam_8").type.list_size == 64
    assert (np.asarray(maps["map_layercam_8_scale"]) > 0).all()


def test_a_second_map_in_the_fit_is_a_change_of_config(extended: RunDir, small_run: RunDir) -> None:
    """The sensitivity at stride 4 beside the pixels': in the run and its prediction."""
    rows = table(extended, "sensitivity").sort_by("image_id")
    assert rows.schema.field("map").type == rows.schema.field("map_inner_4").type
    whole = table(small_run, "sensitivity").sort_by("image_id")
    same = whole.filter(pc.is_in(whole["image_id"], rows["image_id"].combine_chunks()))
    assert len(rows) == 160
    assert rows["map"].equals(same["map"]), "the paper's stays as it is"
    for fitted in (
        fitted_methods(extended)["sensitivity"],
        fitted_methods(extended)["sensitivity_calibrated"],
    ):
        assert fitted.method.columns == ("map", "map_inner_4")
        assert fitted.method.linear.coef_.shape == (4, 128)
    uri = rows["uri"][0].as_py()
    (prediction,) = Localizer.load(extended.url).predict([uri])
    assert 0 <= prediction.confidence <= 1
    own = table(extended, "predictions").to_pandas()
    judged = table(extended, "compare/predictions").to_pandas()
    by = ["image_id", "method"]
    merged = own.merge(judged, on=by)
    assert set(merged.method) == {"sensitivity", "sensitivity_calibrated"}
    assert len(merged) == 2 * own.image_id.nunique()
    assert (merged.iou_x == merged.iou_y).all(), "the comparison judges the same fitted method"


def test_a_transformer_runs_through_the_run_and_the_comparison(
    small_run: RunDir, tmp_path: Path
) -> None:
    config = small_config(tmp_path, rows_per_block=20)
    run = RunDir.open(
        config.model_copy(
            update={
                "dataset": small_run.config.dataset.model_copy(update={"n_images": 48}),
                "classifier": Timm(source="timm", name="vit_tiny_patch16_224", pretrained=False),
                "sensitivity": config.sensitivity.model_copy(
                    update={"label": "predicted", "batch_size": 8, "grid": 14}
                ),
                "compare": Compare(
                    methods=(
                        "sensitivity",
                        "gradcam_threshold",
                        "layercam_16_threshold",
                        "foreground_linear",
                    ),
                    train=10,
                    validation=6,
                    **LITTLE,
                ),
            }
        )
    )
    stages = (manifest, classifier, foreground, sensitivity, fit, evaluate, localizer, compare)
    for stage in stages:
        stage(run)
    rows = pq.read_table(run.path("compare/table.parquet")).to_pylist()
    assert {row["method"] for row in rows} >= {"gradcam_threshold", "layercam_16_threshold"}
    assert all(row["n_errors"] == 0 for row in rows)
    maps = table(run, "compare/maps")
    for name in ("map_gradcam", "map_layercam_16"):
        assert set(maps[f"{name}_height"].to_pylist()) == {14}, "the patches are the places"
        assert (np.asarray(maps[f"{name}_scale"]) > 0).all()
