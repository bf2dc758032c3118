"""What a run found -> ``report.html``. Its tables are read in parts, by this process alone."""

import heapq
import json
import logging
import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sensloc.dice import keys
from sensloc.methods import catalogue, saved
from sensloc.methods.linear import LinearBox
from sensloc.networks.classes import class_names
from sensloc.prediction.facts import read_facts
from sensloc.report.page import gallery
from sensloc.report.page.findings import RunFindings
from sensloc.report.page.render import render
from sensloc.report.page.series import charted_methods
from sensloc.report.text import Row, corloc_rows
from sensloc.scoring.counts import COLUMNS, tally
from sensloc.stages.examples import examples, parts
from sensloc.store.run import RunDir

log = logging.getLogger(__name__)


def report(run: RunDir) -> None:
    """A finished run, with its comparison if there is one -> ``report.html``.

    Raises:
        RunError: the run is not finished.
    """
    run.require("evaluate", "localizer")
    with run.stage("report", "report.html"):
        run.write("report.html", render(gather(run), datetime.now().astimezone()))
    log.info("report: %s", run.at("report.html"))


def gather(run: RunDir) -> RunFindings:
    """Return what the page is made of; the predictions are the comparison's if there is one."""
    compared = run.finished("compare")
    predictions = "compare/predictions" if compared else "predictions"
    counts = tally(parts(run, run.files(predictions), COLUMNS))
    charted = charted_methods(counts["method"].unique().to_pylist())
    return RunFindings(
        config=run.config,
        record=run.facts(),
        audit=json.loads(run.read("audit.json")),
        corloc=corloc_rows(pa.concat_tables(parts(run, run.files("corloc")))),
        compared={
            name: _compared(run, name) if compared else [] for name in ("table", "labels", "unseen")
        },
        counts=counts,
        charted=charted,
        errors=_errors(run),
        coefficients=_coefficients(run),
        localizer=read_facts(run.url)[1],
        cards=_cards(run, predictions, charted),
    )


def _coefficients(run: RunDir) -> npt.NDArray[np.float64]:
    """Return the weights of the paper's method's linear map, of its first heat map: [4, G * G]."""
    file = saved.place(catalogue.MAIN)
    method = saved.loads(run.read(file), run.at(file)).method
    assert isinstance(method, LinearBox)
    return np.asarray(method.linear.coef_)[:, : run.config.sensitivity.grid**2]


def _compared(run: RunDir, name: str) -> list[Row]:
    """Return the rows of one of the comparison's small tables."""
    file = run.path(f"compare/{name}.parquet")
    return [row for part in parts(run, [file]) for row in part.to_pylist()]


def _errors(run: RunDir) -> dict[str, int]:
    """Return how many images have an error, by reason: without names of files, N for numbers."""
    images: Counter[str] = Counter()
    failed = pc.field("error").is_valid()
    for part in parts(run, run.files("sensitivity"), ("uri", "error"), failed):
        for row in part.to_pylist():
            reason = row["error"].removeprefix(f"{row['uri']}: ")
            images[re.sub(r"\d+", "N", reason)] += 1
    return dict(images)


def _cards(run: RunDir, predictions: str, methods: Sequence[str]) -> list[gallery.Card]:
    """Return the gallery's cards: the test images with the lowest hashes, in the order of these."""
    good = (pc.field("split") == "test") & pc.field("error").is_null()
    ids = (
        part["image_id"].to_pylist()
        for part in parts(run, run.files("sensitivity"), ("image_id",), good)
    )
    seed = run.config.evaluate.seed
    hashed = (pair for part in ids for pair in zip(keys(part, seed).tolist(), part, strict=True))
    drawn = [image_id for _, image_id in heapq.nsmallest(gallery.IMAGES, hashed)]
    names = class_names(run.config.classifier)
    return [
        gallery.card(
            example.row,
            example.pixels,
            names,
            {catalogue.title(name): row for name, row in example.predictions.items()},
        )
        for example in examples(run, drawn, predictions, methods, gallery.SIDE)
    ]
