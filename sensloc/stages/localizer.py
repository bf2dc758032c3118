"""A finished run -> ``localizer/``: all that prediction needs, and how sure it may be."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import sensloc
from sensloc.engine import units
from sensloc.engine.batches import Worker
from sensloc.engine.chain import DECODE, FILE, Chain, write_units
from sensloc.heatmaps import SECOND, names_of
from sensloc.heatmaps.passes import PREDICTED
from sensloc.images.pixels import Pixels
from sensloc.methods import OfMaps, catalogue, saved
from sensloc.methods.catalogue import PREDICTING
from sensloc.networks.classes import class_indices, class_names
from sensloc.networks.scenes import SceneNet
from sensloc.prediction.confidence import Confidence, calibration_error, evidence, reliability
from sensloc.prediction.facts import FORMAT, HeldOutAccuracy, LocalizerFacts
from sensloc.prediction.facts import METHOD as METHOD_FILE
from sensloc.prediction.facts import READOUT as READOUT_FILE
from sensloc.rows import true_boxes, vectors
from sensloc.scoring import corloc
from sensloc.stages.fit import fitted_methods
from sensloc.stages.network import looker, require_same_weights
from sensloc.stages.readout_file import readouts_of
from sensloc.store import tables
from sensloc.store.files import errors_of, load, load_unit, parquet, stamp
from sensloc.store.run import RunDir, RunError

log = logging.getLogger(__name__)

JUDGED, CONFIDENCE = "judged", "confidence"

COLUMNS = (
    "image_id", "uri", "content", "split", "class_index", "predicted_index", "probability", "boxes",
    "error",
)  # fmt: skip
"""What is read of the sensitivity table, the maps aside."""


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
    name = method_of(run)
    of = {"weights": weights, "method": name}
    with run.stage("localizer", *outputs, of=of) as facts:
        write_units(chain(run, name), {unit: unit for unit in units.names(run, "sensitivity")})
        columns = ["image_id", "split", "recognised", "iou", "evidence", "correct", "error"]
        rows = load(run, run.files(JUDGED), columns, errors=True)
        errors = errors_of(rows)
        parts = {name: _of(rows, name) for name in ("validation", "test")}
        if any(len(right) == 0 for _, right in parts.values()):
            raise RunError(f"{run.at(JUDGED)}: no validation or no test image without an error")
        confidence = Confidence.fit(*parts["validation"])
        judged = {name: _judged(confidence, *part) for name, part in parts.items()}
        run.write(f"{CONFIDENCE}/confidence.parquet", _promised(run, rows, confidence))
        _export(run, name, weights, confidence, judged)
        facts |= {"method": name, "rows": len(rows), "errors": errors}
        facts |= judged["test"].model_dump(exclude={"reliability", "images"})
    log.info(
        "localizer: %(method)s, CorLoc %(corloc).1f %% by predicted classes, confidence "
        "%(confidence).1f %%, expected calibration error %(calibration_error).1f points",
        facts,
    )


def method_of(run: RunDir) -> str:
    """Return the method that predicts: the config's, or the best on the validation images.

    Of equals it is the last in the order of the table.
    """
    if (wanted := run.config.localizer.method) != "best":
        return wanted
    fitted = fitted_methods(run)
    right = {name: _right(name, fitted[name].facts) for name in PREDICTING if name in fitted}
    return max(reversed(right), key=right.__getitem__)


def _right(name: str, facts: Mapping[str, Any]) -> float:
    """Return the share of validation images that a fitted method gets right."""
    key = "validation_correct"
    calibrated = name != catalogue.base(name)
    return float(facts[f"{key}_calibrated" if calibrated else key] / facts["n_validation"])


def chain(run: RunDir, name: str) -> Chain:
    """Return how the held-out rows of a unit are judged by a method and their predicted classes."""
    method = saved.of_maps(fitted_methods(run)[name].method)
    return Chain(
        run,
        JUDGED,
        rows=partial(_rows, maps=method.columns),
        worker=partial(Judge, run=run, method=method),
        keep=SECOND in names_of(method.columns),
    )


def _rows(run: RunDir, unit: str, maps: Sequence[str]) -> pa.Table:
    """Return a unit's held-out rows; an image is needed where another class was predicted."""
    held_out = pc.field("split").isin(["validation", "test"]) & pc.field("error").is_null()
    rows = load_unit(run, "sensitivity", unit, [*COLUMNS, *maps], held_out)
    other = pc.not_equal(rows["predicted_index"], rows["class_index"])
    if run.config.sensitivity.label == "predicted":
        other = pa.array(np.zeros(len(rows), bool))
    return rows.append_column(DECODE, other)


class Judge(Worker):
    """The run's network and a fitted method: how right are the boxes of predicted classes?"""

    def __init__(self, device: str, run: RunDir, method: OfMaps) -> None:
        self.config, self.method = run.config, method
        self.look = looker(run, names_of(method.columns), device)

    def __call__(self, rows: pa.Table, pixels: Pixels) -> pa.Table:
        """Return the rows with the maps and the probability of the predicted class."""
        wanted = np.flatnonzero(np.asarray(pc.and_(rows[DECODE], pc.is_null(rows["error"]))))
        if len(wanted) == 0:
            return rows
        files = rows[FILE].take(pa.array(wanted)).to_pylist() if self.look.twice else ()
        seen = self.look(pixels[wanted], np.full(len(wanted), PREDICTED), files)
        errors = np.array(rows["error"].to_pylist(), object)
        errors[wanted[~seen.finite]] = "the derivative is not finite"
        at = wanted[seen.finite]
        probability = np.array(rows["probability"].to_pylist(), np.float32)
        probability[at] = seen.probability[seen.finite]
        new = {
            "probability": pa.array(probability, pa.float32()),
            "error": pa.array(errors, pa.string()),
        }
        read = seen.columns()
        for name in self.method.columns:
            values, maps = read[name], vectors(rows, name).copy()
            maps[at] = values[seen.finite]
            new[name] = tables.fixed(maps, pa.float32())
        return pa.table({name: rows[name] for name in rows.column_names} | new, rows.schema)

    def whole(self, rows: pa.Table) -> pa.Table:
        """Return rows of ``tables.JUDGED``."""
        if len(rows) == 0:
            return tables.JUDGED.empty_table()
        maps = {name: vectors(rows, name) for name in self.method.columns}
        probability = np.array(rows["probability"], np.float64)
        boxes = self.method.of_maps(maps)
        first = maps[self.method.columns[0]]
        iou = corloc.best_iou(boxes, true_boxes(rows))
        right = pa.array(iou >= self.config.evaluate.iou)
        columns = {
            "image_id": rows["image_id"],
            "split": rows["split"],
            "recognised": pc.equal(rows["predicted_index"], rows["class_index"]),
            "box": tables.fixed(boxes.astype(np.float32), pa.float32()),
            "iou": iou.astype(np.float32),
            "evidence": tables.fixed(evidence(probability, boxes, first), pa.float64()),
            "correct": pc.if_else(pc.is_null(rows["error"]), right, None),
            "error": rows["error"],
        }
        return pa.table(columns, tables.JUDGED)


def _of(rows: pa.Table, split: str) -> tuple[Any, Any]:
    """Return the evidence [n, k] and the outcomes [n] of a set's rows without an error."""
    good = rows.filter((pc.field("split") == split) & pc.field("error").is_null())
    return vectors(good, "evidence"), np.array(good["correct"], bool)


def _judged(confidence: Confidence, seen: Any, right: Any) -> HeldOutAccuracy:
    """Return how well a confidence keeps what it promises on evidence [n, k] and outcomes [n]."""
    chance = confidence(seen)
    bins = reliability(chance, right)
    return HeldOutAccuracy(
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
    run: RunDir,
    name: str,
    weights: str,
    confidence: Confidence,
    judged: Mapping[str, HeldOutAccuracy],
) -> None:
    """Write the folder ``localizer``: the facts last, so that it is whole when they are there."""
    config = run.config
    wnids = tuple(class_indices(config.classifier))
    classifier = config.classifier
    if classifier.classes != "imagenet1k":  # a file that may not be where this folder goes
        classifier = classifier.model_copy(update={"classes": wnids})
    facts = LocalizerFacts(
        format=FORMAT,
        version=sensloc.__version__,
        run=config.name,
        config_hash=config.fingerprint,
        classifier=classifier,
        weights=weights,
        wnids=wnids,
        names=class_names(config.classifier),
        sensitivity=config.sensitivity,
        method=name,
        looks=1 + (name == catalogue.SECOND_LOOK),
        iou=config.evaluate.iou,
        confidence=confidence,
        validation=judged["validation"],
        test=judged["test"],
    )
    run.write(f"localizer/{METHOD_FILE}", run.read(saved.place(name)))
    if name in (catalogue.FOREGROUND, catalogue.SECOND_LOOK):
        whole, *_ = readouts_of(run)
        run.write(f"localizer/{READOUT_FILE}", saved.pack((whole,), {}))
    if isinstance(config.classifier, SceneNet):
        run.write("localizer/classifier.pt", run.read("classifier.pt"))
    run.write("localizer/localizer.json", facts.model_dump_json(indent=2))  # last
