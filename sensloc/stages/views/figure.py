"""Examples of a run's predictions -> the contact sheet."""

import numpy as np
import pyarrow.compute as pc

from sensloc.images.fetch import ImageError
from sensloc.methods import catalogue
from sensloc.report.page.gallery import shown_maps
from sensloc.report.sheet import SheetImage, choose, contact_sheet
from sensloc.report.text import taken_from
from sensloc.stages.examples import Example, examples
from sensloc.store.files import load
from sensloc.store.run import RunDir, RunError

METHODS = (catalogue.FOREGROUND, catalogue.CALIBRATED_MAIN)
"""The first of these that the run has is drawn."""


def figure(run: RunDir) -> None:
    """``predictions/`` and ``sensitivity/`` -> ``examples.png``: hits and misses, drawn by seed.

    Raises:
        RunError: one of their images is not what it was.
    """
    run.require("evaluate")
    method = next(name for name in METHODS if name in catalogue.of_run(run.config.maps))
    if (other := taken_from(run.stages())) and other["label"] == "truth":
        method += catalogue.BY_PREDICTED  # as the maps of the sensitivity table there
    with run.stage("figure", "examples.png"):
        judged = load(
            run,
            run.files("predictions"),
            ["image_id", "wnid", "correct"],
            where=pc.field("method") == method,
        )
        drawn = choose(judged, run.config.evaluate.seed)
        size = max(run.config.classifier.input_size, 224)
        images = examples(run, drawn, "predictions", [method], size)
        run.write("examples.png", contact_sheet([_sheet_image(image, method) for image in images]))


def _sheet_image(example: Example, method: str) -> SheetImage:
    """Return what the sheet shows of an image.

    Raises:
        RunError: the image cannot be read any more, or has changed.
    """
    if isinstance(example.pixels, ImageError):
        raise RunError(str(example.pixels))
    row, prediction = example.row, example.predictions[method]
    return SheetImage(
        title=row["class_name"] or row["wnid"],
        pixels=example.pixels,
        aspect=row["width"] / row["height"],
        maps=shown_maps(row),
        truth=np.array(row["boxes"]),
        predicted=np.array(prediction["box"]),
        iou=prediction["iou"],
    )
