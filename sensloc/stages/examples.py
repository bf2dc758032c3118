"""Images of a run for people to look at: what is known of each, its pixels and its predictions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from sensloc import heatmaps
from sensloc.images.fetch import ImageError
from sensloc.images.pixels import Pixels
from sensloc.report.page.gallery import SHOWN
from sensloc.store.images import images_of
from sensloc.store.run import RunDir

COLUMNS = (
    *("image_id", "uri", "content", "wnid", "class_name", "class_index", "predicted_index"),
    *("width", "height", "boxes"),
)
"""What is taken of the sensitivity table beside heat maps."""


@dataclass(frozen=True)
class Example:
    """An image of the sensitivity table.

    Attributes:
        row: ``COLUMNS`` of that table, and the heat maps ``SHOWN``.
        pixels: uint8 [S, S, 3], squashed; or why there are none.
        predictions: a row of the predictions for each method, by its name.
    """

    row: Mapping[str, Any]
    pixels: Pixels | ImageError
    predictions: Mapping[str, Mapping[str, Any]]


def examples(
    run: RunDir, image_ids: Sequence[str], stage: str, methods: Sequence[str], size: int
) -> list[Example]:
    """Return images without an error, in the order in which they are named.

    Args:
        run: a run that is evaluated.
        image_ids: of the images.
        stage: folder of the predictions.
        methods: whose predictions to take.
        size: S, in pixels.
    """
    named = pc.field("image_id").isin(list(image_ids))
    maps = [heatmaps.column(name) for name in SHOWN if name in run.config.maps]
    wanted = [*COLUMNS, *(f"{at}{end}" for at in maps for end in ("", "_height", "_width"))]
    row_of = {
        row["image_id"]: row
        for part in parts(run, run.files("sensitivity"), wanted, named)
        for row in part.to_pylist()
    }
    predictions: dict[str, dict[str, Any]] = {image_id: {} for image_id in image_ids}
    by_methods = named & pc.field("method").isin(list(methods))
    columns = ("image_id", "method", "box", "iou", "correct")
    for part in parts(run, run.files(stage), columns, by_methods):
        for row in part.to_pylist():
            predictions[row["image_id"]][row["method"]] = row
    rows = [row_of[image_id] for image_id in image_ids]
    files = pa.Table.from_pylist([{name: row[name] for name in ("uri", "content")} for row in rows])
    images = images_of(files, size, run.config)
    return [
        Example(
            row,
            image if isinstance(image, ImageError) else image.pixels,
            {m: of_image[m] for m in methods if m in of_image},
        )
        for row, image in zip(rows, images, strict=True)
        for of_image in [predictions[row["image_id"]]]
    ]


def parts(
    run: RunDir,
    files: Sequence[str],
    columns: Sequence[str] | None = None,
    where: pc.Expression | None = None,
) -> Iterator[pa.Table]:
    """Yield rows of Parquet files a part at a time, so that millions need little memory.

    Args:
        run: where the files are.
        files: as ``RunDir.files`` and ``RunDir.path`` give them.
        columns: to read; None: all.
        where: keep the rows for which this holds; None: all.
    """
    batches = pads.dataset(list(files), filesystem=run.arrow).to_batches(
        columns=columns and list(columns), filter=where
    )
    return (pa.Table.from_batches([batch]) for batch in batches if len(batch))
