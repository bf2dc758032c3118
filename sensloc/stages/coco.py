"""A run's test images and every method's boxes, for those who work with COCO's tools."""

import json
import logging

import pyarrow.compute as pc

from sensloc.prediction import exports
from sensloc.store.files import load
from sensloc.store.run import RunDir

log = logging.getLogger(__name__)

TRUTH = ("image_id", "uri", "wnid", "class_name", "width", "height", "boxes")


def coco(run: RunDir) -> str:
    """``sensitivity/`` (test) and the predictions -> ``coco/truth.json``, ``coco/<method>.json``.

    The comparison's predictions where it is complete, else the run's own.

    Returns:
        What was written, for a terminal.

    Raises:
        RunError: the run is not evaluated.
    """
    run.require("evaluate")
    compared = run.finished("compare")
    files = run.files("compare/predictions" if compared else "predictions")
    rows = load(run, run.files("sensitivity"), list(TRUTH), "test")
    truth = exports.coco_truth(rows.sort_by("image_id").to_pylist(), run.config.name)
    run.write("coco/truth.json", json.dumps(truth))
    made = load(run, files, ["image_id", "wnid", "method", "box"])
    methods = sorted(made["method"].unique().to_pylist())
    for method in methods:
        mine = made.filter(pc.equal(made["method"], method)).sort_by("image_id").to_pylist()
        run.write(f"coco/{method}.json", json.dumps(exports.coco_results(mine, truth)))
    names = ", ".join(methods)
    return f"{run.at('coco')}: truth.json of {len(rows):,} test images, and boxes by {names}"
