"""Examples of a run's predictions -> the contact sheet."""

import numpy as np
import pyarrow.compute as pc

from sensloc.engine import cluster
from sensloc.images.decode import read
from sensloc.images.fetch import ImageError
from sensloc.methods import catalogue
from sensloc.report.sheet import Example, choose, contact_sheet
from sensloc.store.run import RunDir, RunError

METHOD = catalogue.PREDICTS


def figure(run: RunDir) -> None:
    """``predictions/`` and ``sensitivity/`` -> ``examples.png``: hits and misses, drawn by seed.

    Raises:
        RunError: one of their images is not what it was.
    """
    run.require("evaluate")
    with run.stage("figure", "examples.png"):
        run.write("examples.png", contact_sheet(_examples(run)))


def _examples(run: RunDir) -> list[Example]:
    ours = pc.field("method") == METHOD
    judged = cluster.load(
        run, run.files("predictions"), ["image_id", "wnid", "correct", "box", "iou"], where=ours
    )
    drawn = choose(judged, run.config.evaluate.seed)
    predicted = {row["image_id"]: row for row in judged.to_pylist()}
    rows = cluster.load(
        run,
        run.files("sensitivity"),
        ["image_id", "uri", "content", "class_name", "wnid", "boxes", "map", "width", "height"],
        where=pc.field("image_id").isin(drawn),
    ).to_pylist()
    grid, size = run.config.sensitivity.grid, max(run.config.classifier.input_size, 224)
    uris, contents = zip(*((row["uri"], row["content"]) for row in rows), strict=True)
    limit = run.config.dataset.max_pixels
    made = {}
    for row, pixels in zip(rows, read(uris, size, 8, limit, contents), strict=True):
        if isinstance(pixels, ImageError):
            raise RunError(str(pixels))
        made[row["image_id"]] = Example(
            title=row["class_name"] or row["wnid"],
            pixels=pixels,
            aspect=row["width"] / row["height"],
            map=np.array(row["map"], np.float32).reshape(grid, grid),
            truth=np.array(row["boxes"]),
            predicted=np.array(predicted[row["image_id"]]["box"]),
            iou=predicted[row["image_id"]]["iou"],
        )
    return [made[name] for name in drawn]
