"""A run's test images and every method's boxes, for those who work with COCO's tools."""

import json

import pyarrow.compute as pc

from sensloc.report import exports
from sensloc.store.files import load
from sensloc.store.run import RunDir

TRUTH = ("image_id", "uri", "wnid", "class_name", "width", "height", "boxes")
"""What is exported of the sensitivity table."""


def coco(run: RunDir) -> str:
    """``sensitivity/`` (test) and the predictions -> ``coco/truth.json``, ``coco/<method>.json``.

    The predictions are the comparison's where it is complete, else the run's own.

    Returns:
        The folder and what is in it, for a terminal.

    Raises:
        RunError: the run is not evaluated.
    """
    run.require("evaluate")
    stage = "compare/predictions" if run.finished("compare") else "predictions"
    images = load(run, run.files("sensitivity"), list(TRUTH), "test").sort_by("image_id")
    truth = exports.coco_truth(images.to_pylist(), run.config.name)
    run.write("coco/truth.json", json.dumps(truth))
    boxes = load(run, run.files(stage), ["image_id", "wnid", "method", "box"])
    methods = sorted(boxes["method"].unique().to_pylist())
    for method in methods:
        rows = boxes.filter(pc.equal(boxes["method"], method)).sort_by("image_id").to_pylist()
        run.write(f"coco/{method}.json", json.dumps(exports.coco_results(rows, truth)))
    names = ", ".join(methods)
    return f"{run.at('coco')}: truth.json of {len(images):,} test images, and boxes by {names}"
