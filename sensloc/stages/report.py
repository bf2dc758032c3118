"""What a run has found -> ``report.html``. Its tables are read in parts, by this process alone."""

import heapq
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from sensloc.dice import keys
from sensloc.images.decode import read
from sensloc.images.fetch import ImageError
from sensloc.methods import catalogue
from sensloc.methods.least_squares import LinearMap
from sensloc.networks.classes import class_names
from sensloc.prediction.localizer import read_facts
from sensloc.report.page import gallery
from sensloc.report.page.build import Found, page, shown
from sensloc.report.page.render import render
from sensloc.scoring.counts import COLUMNS, tally
from sensloc.store.run import RunDir

COMPARED = ("table", "labels", "unseen")

CARD = (
    *("image_id", "uri", "content", "wnid", "class_name", "class_index", "predicted_index"),
    *("width", "height", "boxes", "map", "map_height", "map_width"),
)
"""What a card of the gallery shows of the sensitivity table."""

log = logging.getLogger(__name__)


def report(run: RunDir) -> None:
    """A finished run, with its comparison if there is one -> ``report.html``.

    Raises:
        RunError: the run is not finished.
    """
    run.require("evaluate", "localizer")
    with run.stage("report", "report.html"):
        run.write("report.html", render(page(found(run), datetime.now().astimezone())))
    log.info("report: %s", run.at("report.html"))


def found(run: RunDir) -> Found:
    """What the page is made of."""
    compared = run.finished("compare")
    predictions = "compare/predictions" if compared else "predictions"
    counts = tally(_parts(run, predictions, COLUMNS))
    return Found(
        config=run.config,
        record=run.facts(),
        audit=json.loads(run.read("audit.json")),
        corloc=[row for part in _parts(run, "corloc", None) for row in part.to_pylist()],
        counts=counts,
        errors=_errors(run),
        coefficients=LinearMap.load(run.at("linear_map")).coef_,
        localizer=read_facts(run.url)[1],
        cards=_cards(run, predictions, shown(counts["method"].unique().to_pylist())),
        compared={name: _table(run, name) for name in COMPARED} if compared else {},
    )


def _parts(
    run: RunDir, stage: str, columns: Sequence[str] | None, where: pc.Expression | None = None
) -> Iterator[pa.Table]:
    """A stage's rows, a part at a time."""
    scanned = pads.dataset(run.files(stage), filesystem=run.arrow).to_batches(
        columns=columns and list(columns), filter=where
    )
    return (pa.Table.from_batches([batch]) for batch in scanned if len(batch))


def _table(run: RunDir, name: str) -> pa.Table:
    return pads.dataset(run.path(f"compare/{name}.parquet"), filesystem=run.arrow).to_table()


def _errors(run: RunDir) -> dict[str, int]:
    """Reason -> images: without the file's name and with N for numbers."""
    reasons: Counter[str] = Counter()
    for part in _parts(run, "sensitivity", ("uri", "error"), pc.field("error").is_valid()):
        for row in part.to_pylist():
            reasons[re.sub(r"\d+", "N", row["error"].removeprefix(f"{row['uri']}: "))] += 1
    return dict(reasons)


def _cards(run: RunDir, predictions: str, methods: Sequence[str]) -> list[gallery.Card]:
    """The test images with the lowest hashes, in the order of these."""
    good = (pc.field("split") == "test") & pc.field("error").is_null()
    ranked = heapq.nsmallest(
        gallery.IMAGES,
        (
            pair
            for part in _parts(run, "sensitivity", ("image_id",), good)
            for pair in _ranked(part["image_id"].to_pylist(), run.config.evaluate.seed)
        ),
    )
    place = {image_id: i for i, (_, image_id) in enumerate(ranked)}
    drawn = pc.field("image_id").isin(list(place))
    rows = [row for part in _parts(run, "sensitivity", CARD, drawn) for row in part.to_pylist()]
    rows.sort(key=lambda row: place[row["image_id"]])
    boxes: dict[str, dict[str, Any]] = {name: {} for name in place}
    columns = ("image_id", "method", "box", "iou", "correct")
    wanted = drawn & pc.field("method").isin(list(methods))
    for part in _parts(run, predictions, columns, wanted):
        for row in part.to_pylist():
            boxes[row["image_id"]][row["method"]] = row
    names = class_names(run.config.classifier)
    uris, contents = ([row[name] for row in rows] for name in ("uri", "content"))
    resources, limit = run.config.resources, run.config.dataset.max_pixels
    images = read(uris, gallery.SIDE, resources.connections, limit, contents)
    pixels = [image if isinstance(image, ImageError) else image.pixels for image in images]
    return [
        gallery.card(
            row,
            seen,
            names,
            {
                catalogue.title(name): boxes[row["image_id"]][name]
                for name in methods
                if name in boxes[row["image_id"]]
            },
        )
        for row, seen in zip(rows, pixels, strict=True)
    ]


def _ranked(image_ids: Sequence[str], seed: int) -> Iterator[tuple[int, str]]:
    return zip(keys(image_ids, seed).tolist(), image_ids, strict=True)
