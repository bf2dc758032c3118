"""The stage that draws examples of a run's predictions on a contact sheet."""

import numpy as np
import pyarrow.compute as pc

from sensloc.images.fetch import ImageError
from sensloc.report.sheet import Example, choose, contact_sheet
from sensloc.store.files import load
from sensloc.store.images import images_of
from sensloc.store.run import RunDir, RunError

METHOD = "sensitivity_calibrated"


def figure(run: RunDir) -> None:
    """``predictions/`` and ``sensitivity/`` -> ``examples.png``: hits and misses, drawn by seed.

    Raises:
        RunError: An image is not what it was.
    """
    run.require("evaluate")
    with run.stage("figure", "examples.png"):
        run.write("examples.png", contact_sheet(_examples(run)))


def _examples(run: RunDir) -> list[Example]:
    """Return the drawn images with their true boxes, predicted boxes and maps."""
    of_method = pc.field("method") == METHOD
    judged = load(
        run,
        run.files("predictions"),
        ["image_id", "wnid", "correct", "box", "iou"],
        where=of_method,
    )
    drawn = choose(judged, run.config.evaluate.seed)
    predicted = {row["image_id"]: row for row in judged.to_pylist()}
    rows = load(
        run,
        run.files("sensitivity"),
        ["image_id", "uri", "content", "class_name", "wnid", "boxes", "map", "width", "height"],
        where=pc.field("image_id").isin(drawn),
    )
    grid, size = run.config.sensitivity.grid, max(run.config.classifier.input_size, 224)
    examples = {}
    for row, image in zip(rows.to_pylist(), images_of(rows, size, run.config), strict=True):
        if isinstance(image, ImageError):
            raise RunError(str(image))
        examples[row["image_id"]] = Example(
            title=row["class_name"] or row["wnid"],
            pixels=image.pixels,
            aspect=row["width"] / row["height"],
            map=np.array(row["map"], np.float32).reshape(grid, grid),
            truth=np.array(row["boxes"]),
            predicted=np.array(predicted[row["image_id"]]["box"]),
            iou=predicted[row["image_id"]]["iou"],
        )
    return [examples[image_id] for image_id in drawn]
