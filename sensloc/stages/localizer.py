"""A finished run -> ``localizer/``: all that prediction needs, and how sure it may be."""

import json
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import sensloc
from sensloc.config import SceneNet
from sensloc.engine import units
from sensloc.engine.chain import DECODE, Chain, Worker, write_units
from sensloc.heatmaps.gradient import PREDICTED
from sensloc.images.decode import Pixels
from sensloc.methods import linear
from sensloc.networks.classes import class_indices, class_names
from sensloc.networks.prepare import prepare
from sensloc.prediction.confidence import Confidence, calibration_error, evidence, reliability
from sensloc.prediction.localizer import FORMAT, Facts, Judged
from sensloc.rows import true_boxes, vectors
from sensloc.scoring import corloc
from sensloc.stages.fit import fitted_methods
from sensloc.stages.sensitivity import load_network_of, map_maker, require_same_weights
from sensloc.store import tables
from sensloc.store.files import errors_of, load, load_unit, parquet, stamp
from sensloc.store.run import RunDir, RunError

log = logging.getLogger(__name__)

METHOD = "sensitivity_calibrated"
JUDGED, CONFIDENCE = "judged", "confidence"

COLUMNS = (
    "image_id", "uri", "content", "split", "class_index", "predicted_index", "probability", "boxes",
    "map", "error",
)  # fmt: skip


def localizer(run: RunDir) -> None:
    """``sensitivity/`` (validation, test) and the fit -> ``localizer/``, ``confidence/``.

    Prediction does not know the class: where the run's maps are of the annotated class and the
    network predicts another one, the map is made anew.

    Raises:
        RunError: there is nothing to learn a confidence from, or to judge it by; or the network's
            weights are not those that the maps were made by.
    """
    run.require("evaluate")
    weights = require_same_weights(run)
    outputs = ("localizer", JUDGED, CONFIDENCE)
    with run.stage("localizer", *outputs, of={"weights": weights}) as facts:
        write_units(chain(run), {unit: unit for unit in units.names(run, "sensitivity")})
        columns = ["image_id", "split", "recognised", "iou", "evidence", "correct", "error"]
        rows = load(run, run.files(JUDGED), columns, errors=True)
        errors = errors_of(rows)
        parts = {name: _of(rows, name) for name in ("validation", "test")}
        if any(len(right) == 0 for _, right in parts.values()):
            raise RunError(f"{run.at(JUDGED)}: no validation or no test image without an error")
        confidence = Confidence.fit(*parts["validation"])
        judged = {name: _judged(confidence, *part) for name, part in parts.items()}
        run.write(f"{CONFIDENCE}/confidence.parquet", _promised(run, rows, confidence))
        _export(run, weights, confidence, judged)
        facts |= {"rows": len(rows), "errors": errors}
        facts |= judged["test"].model_dump(exclude={"reliability", "images"})
    log.info(
        "localizer: CorLoc %(corloc).1f %% by predicted classes, confidence %(confidence).1f %%, "
        "expected calibration error %(calibration_error).1f points",
        facts,
    )


def chain(run: RunDir) -> Chain:
    """Return how the held-out rows of a unit are judged by their predicted classes."""
    return Chain(
        run,
        JUDGED,
        rows=_rows,
        size=run.config.classifier.input_size,
        batch_size=run.config.sensitivity.batch_size,
        worker=partial(Judge, run=run),
    )


def _rows(run: RunDir, unit: str) -> pa.Table:
    """Return a unit's held-out rows; an image is needed where another class was predicted."""
    held_out = pc.field("split").isin(["validation", "test"]) & pc.field("error").is_null()
    rows = load_unit(run, "sensitivity", unit, COLUMNS, held_out)
    other = pc.not_equal(rows["predicted_index"], rows["class_index"])
    if run.config.sensitivity.label == "predicted":
        other = pa.array(np.zeros(len(rows), bool))
    return rows.append_column(DECODE, other)


class Judge(Worker):
    """The run's network and its fitted map: how right are the boxes of predicted classes?"""

    def __init__(self, device: str, run: RunDir) -> None:
        method = fitted_methods(run)[METHOD]
        assert isinstance(method, linear.LinearBox)
        network = prepare(load_network_of(run), run.config.classifier, device)
        self.config, self.method, self.make = run.config, method, map_maker(run, network, device)

    def __call__(self, rows: pa.Table, pixels: Pixels) -> pa.Table:
        """Return the rows with the map and the probability of the predicted class."""
        wanted = np.asarray(pc.and_(rows[DECODE], pc.is_null(rows["error"])))
        if not wanted.any():
            return rows
        made = self.make(pixels[wanted], np.full(wanted.sum(), PREDICTED))
        finite = np.isfinite(made.scale)
        errors = np.array(rows["error"].to_pylist(), object)
        errors[np.flatnonzero(wanted)[~finite]] = "the derivative is not finite"
        at = np.flatnonzero(wanted)[finite]
        maps, probability = vectors(rows, "map").copy(), rows["probability"].to_numpy().copy()
        maps[at], probability[at] = made.map[finite], made.probability[finite]
        new = {
            "map": tables.fixed(maps, pa.float32()),
            "probability": pa.array(probability, pa.float32()),
            "error": pa.array(errors, pa.string()),
        }
        return pa.table({name: rows[name] for name in rows.column_names} | new, rows.schema)

    def whole(self, rows: pa.Table) -> pa.Table:
        """Return rows of ``tables.JUDGED``."""
        if len(rows) == 0:
            return tables.JUDGED.empty_table()
        maps = vectors(rows, "map").astype(np.float64)
        probability = np.array(rows["probability"], np.float64)
        boxes = self.method.of(linear.features_of([maps], self.config.fit.normalise))
        iou = corloc.best_iou(boxes, true_boxes(rows))
        right = pa.array(iou >= self.config.evaluate.iou)
        columns = {
            "image_id": rows["image_id"],
            "split": rows["split"],
            "recognised": pc.equal(rows["predicted_index"], rows["class_index"]),
            "box": tables.fixed(boxes.astype(np.float32), pa.float32()),
            "iou": iou.astype(np.float32),
            "evidence": tables.fixed(evidence(probability, boxes, maps), pa.float64()),
            "correct": pc.if_else(pc.is_null(rows["error"]), right, None),
            "error": rows["error"],
        }
        return pa.table(columns, tables.JUDGED)


def _of(rows: pa.Table, split: str) -> tuple[Any, Any]:
    """Return the evidence [n, k] and the outcomes [n] of a set's rows without an error."""
    good = rows.filter((pc.field("split") == split) & pc.field("error").is_null())
    return vectors(good, "evidence"), np.array(good["correct"], bool)


def _judged(confidence: Confidence, seen: Any, right: Any) -> Judged:
    """Return how well a confidence keeps what it promises on evidence [n, k] and outcomes [n]."""
    chance = confidence(seen)
    bins = reliability(chance, right)
    return Judged(
        images=len(right),
        corloc=100 * float(right.mean()),
        confidence=100 * float(chance.mean()),
        calibration_error=100 * calibration_error(bins),
        reliability=bins,
    )


def _promised(run: RunDir, rows: pa.Table, confidence: Confidence) -> bytes:
    """Return ``tables.CONFIDENCE`` as the bytes of its file."""
    good = rows.filter(pc.is_null(rows["error"])).sort_by("image_id")
    chance = confidence(vectors(good, "evidence")).astype(np.float32)
    table = good.drop_columns(["evidence", "error"]).append_column("confidence", pa.array(chance))
    return parquet(table.cast(tables.CONFIDENCE), stamp(run))


def _export(
    run: RunDir, weights: str, confidence: Confidence, judged: Mapping[str, Judged]
) -> None:
    """Write the folder ``localizer``: the facts last, so that it is whole when they are there."""
    config, fitted = run.config, json.loads(run.read("fit.json"))
    wnids = tuple(class_indices(config.classifier))
    classifier = config.classifier
    if classifier.classes != "imagenet1k":  # a file that may not be where this folder goes
        classifier = classifier.model_copy(update={"classes": wnids})
    facts = Facts(
        format=FORMAT,
        version=sensloc.__version__,
        run=config.name,
        config_hash=config.fingerprint,
        classifier=classifier,
        weights=weights,
        wnids=wnids,
        names=class_names(config.classifier),
        sensitivity=config.sensitivity,
        normalise=config.fit.normalise,
        factors=fitted["factors"],
        iou=config.evaluate.iou,
        confidence=confidence,
        validation=judged["validation"],
        test=judged["test"],
    )
    for name in ("linear_map.npz", "linear_map.json"):
        run.write(f"localizer/{name}", run.read(name))
    if isinstance(config.classifier, SceneNet):
        run.write("localizer/classifier.pt", run.read("classifier.pt"))
    run.write("localizer/localizer.json", facts.model_dump_json(indent=2))  # last
