"""Examples of a run's predictions -> the contact sheet."""

import numpy as np
import pyarrow.compute as pc

from sensloc.figure import Example, choose, contact_sheet
from sensloc.images import fetch
from sensloc.pixels import decode
from sensloc.run import RunDir
from sensloc.stages import ray_data

METHOD = "sensitivity_calibrated"


def figure(run: RunDir) -> None:
    """``predictions/`` and ``sensitivity/`` -> ``examples.png``: hits and misses, drawn by seed."""
    run.require("evaluate")
    with run.stage("figure", "examples.png"):
        run.write("examples.png", contact_sheet(_examples(run)))


def _examples(run: RunDir) -> list[Example]:
    ours = pc.field("method") == METHOD
    judged = ray_data.load(
        run, run.files("predictions"), ["image_id", "wnid", "correct", "box", "iou"], where=ours
    )
    drawn = choose(judged, run.config.evaluate.seed)
    predicted = {row["image_id"]: row for row in judged.to_pylist()}
    rows = ray_data.load(
        run,
        run.files("sensitivity"),
        ["image_id", "uri", "class_name", "wnid", "boxes", "map", "width", "height"],
        where=pc.field("image_id").isin(drawn),
    ).to_pylist()
    grid = run.config.sensitivity.grid
    made = {}
    for row, data in zip(rows, fetch([row["uri"] for row in rows]), strict=True):
        if not isinstance(data, bytes):
            raise data
        made[row["image_id"]] = Example(
            title=row["class_name"] or row["wnid"],
            pixels=decode(data, max(run.config.classifier.input_size, 224)),
            aspect=row["width"] / row["height"],
            map=np.array(row["map"], np.float32).reshape(grid, grid),
            truth=np.array(row["boxes"]),
            predicted=np.array(predicted[row["image_id"]]["box"]),
            iou=predicted[row["image_id"]]["iou"],
        )
    return [made[name] for name in drawn]
