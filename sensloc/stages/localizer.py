"""A finished run -> ``localizer/``: all that prediction needs, and how sure it may be."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import sensloc
from sensloc.engine import idle, units
from sensloc.engine.batches import Worker
from sensloc.engine.chain import DECODE, Chain, write_units
from sensloc.heatmaps import PREDICTED, SECOND, names_of
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
from sensloc.stages.network import require_same_weights
from sensloc.stages.other_class import OtherClass
from sensloc.stages.readout_file import readouts_of
from sensloc.store import tables
from sensloc.store.files import errors_of, load, load_unit, parquet, stamp
from sensloc.store.passes import passes_of
from sensloc.store.run import RunDir, RunError

log = logging.getLogger(__name__)

JUDGED, CONFIDENCE = "judged", "confidence"
OUTPUTS = ("localizer", JUDGED, CONFIDENCE)
"""What the stage writes."""

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
    name = method_of(run)
    of = {"weights": weights, "method": name}
    with run.stage("localizer", *OUTPUTS, of=of) as facts:
        write_units(chain(run, name), {unit: unit for unit in units.names(run, "sensitivity")})
        idle.make_room()  # a run's stages behind this one have no network
        rows = judged_rows(run)
        confidence = Confidence.fit(*_of(run, rows, "validation"))
        kept = {name: accuracy(run, rows, confidence, name) for name in ("validation", "test")}
        facts |= finish(run, rows, _facts(run, name, weights, confidence, kept))


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
        self.threshold, self.method = run.config.evaluate.iou, method
        self.of_class = OtherClass(run, method.columns, device)

    def __call__(self, rows: pa.Table, pixels: Pixels) -> pa.Table:
        """Return the rows with the maps and the probability of the predicted class."""
        return self.of_class(rows, pixels, np.full(len(rows), PREDICTED))

    def whole(self, rows: pa.Table) -> pa.Table:
        """Return rows of ``tables.JUDGED``."""
        return judged(rows, self.method, self.threshold)


def judged(rows: pa.Table, method: OfMaps, threshold: float) -> pa.Table:
    """Return ``tables.JUDGED`` of n rows, whose maps are of the predicted class.

    Args:
        rows: ``COLUMNS``, and the maps that the method reads, which are not null.
        method: It gets the boxes.
        threshold: The IoU from which a box is right.
    """
    if len(rows) == 0:
        return tables.JUDGED.empty_table()
    maps = {name: vectors(rows, name) for name in method.columns}
    probability = np.array(rows["probability"], np.float64)
    boxes = method.of_maps(maps)
    first = maps[method.columns[0]]
    iou = corloc.best_iou(boxes, true_boxes(rows))
    columns = {
        "image_id": rows["image_id"],
        "split": rows["split"],
        "recognised": pc.equal(rows["predicted_index"], rows["class_index"]),
        "box": tables.fixed(boxes.astype(np.float32), pa.float32()),
        "iou": iou.astype(np.float32),
        "evidence": tables.fixed(evidence(probability, boxes, first), pa.float64()),
        "correct": pc.if_else(pc.is_null(rows["error"]), pa.array(iou >= threshold), None),
        "error": rows["error"],
    }
    return pa.table(columns, tables.JUDGED)


def judged_rows(run: RunDir) -> pa.Table:
    """Return ``judged/`` but for the boxes, rows with an error among them."""
    columns = ["image_id", "split", "recognised", "iou", "evidence", "correct", "error"]
    return load(run, run.files(JUDGED), columns, errors=True)


def _of(run: RunDir, rows: pa.Table, split: str) -> tuple[Any, Any]:
    """Return the evidence [n, k] and the outcomes [n] of a set's rows without an error.

    Raises:
        RunError: There are none.
    """
    good = rows.filter((pc.field("split") == split) & pc.field("error").is_null())
    if len(good) == 0:
        raise RunError(f"{run.at(JUDGED)}: no {split} image without an error")
    return vectors(good, "evidence"), np.array(good["correct"], bool)


def accuracy(run: RunDir, rows: pa.Table, confidence: Confidence, split: str) -> HeldOutAccuracy:
    """Return how right the boxes of a set are, and how well a confidence keeps its promise.

    Args:
        run: The run directory.
        rows: See ``judged_rows``.
        confidence: What promises.
        split: The set.

    Raises:
        RunError: It has no image without an error.
    """
    seen, right = _of(run, rows, split)
    chance = confidence(seen)
    bins = reliability(chance, right)
    return HeldOutAccuracy(
        images=len(right),
        corloc=100 * float(right.mean()),
        confidence=100 * float(chance.mean()),
        calibration_error=100 * calibration_error(bins),
        reliability=bins,
    )


def finish(run: RunDir, rows: pa.Table, facts: LocalizerFacts) -> dict[str, Any]:
    """Write ``confidence/`` and ``localizer/``, and return the facts of the stage."""
    run.write(f"{CONFIDENCE}/confidence.parquet", _promised(run, rows, facts.confidence))
    _export(run, facts)
    said = {"method": facts.method, "rows": len(rows), "errors": errors_of(rows)}
    said |= facts.test.model_dump(exclude={"reliability", "images"})
    log.info(
        "localizer: %(method)s, CorLoc %(corloc).1f %% by predicted classes, confidence "
        "%(confidence).1f %%, expected calibration error %(calibration_error).1f points",
        said,
    )
    return said


def _promised(run: RunDir, rows: pa.Table, confidence: Confidence) -> bytes:
    """Return ``tables.CONFIDENCE`` as the bytes of its file."""
    good = rows.filter(pc.is_null(rows["error"])).sort_by("image_id")
    chance = confidence(vectors(good, "evidence")).astype(np.float32)
    table = good.drop_columns(["evidence", "error"]).append_column("confidence", pa.array(chance))
    return parquet(table.cast(tables.CONFIDENCE), stamp(run))


def _facts(
    run: RunDir,
    name: str,
    weights: str,
    confidence: Confidence,
    accuracies: Mapping[str, HeldOutAccuracy],
) -> LocalizerFacts:
    """Return what the run's localizer says of itself."""
    config = run.config
    wnids = tuple(class_indices(config.classifier))
    classifier = config.classifier
    if classifier.classes != "imagenet1k":  # a file that may not be where this folder goes
        classifier = classifier.model_copy(update={"classes": wnids})
    return LocalizerFacts(
        format=FORMAT,
        version=sensloc.__version__,
        run=config.name,
        config_hash=config.fingerprint,
        classifier=classifier,
        weights=weights,
        wnids=wnids,
        names=class_names(config.classifier),
        sensitivity=config.sensitivity.model_copy(update=passes_of(run)),
        method=name,
        methods=catalogue.of_run(config.maps),
        looks=1 + (name == catalogue.SECOND_LOOK),
        iou=config.evaluate.iou,
        confidence=confidence,
        validation=accuracies["validation"],
        test=accuracies["test"],
    )


def _export(run: RunDir, facts: LocalizerFacts) -> None:
    """Write the folder ``localizer``: the facts last, so that it is whole when they are there."""
    for name in facts.methods:
        run.write(f"localizer/{saved.place(name)}", run.read(saved.place(name)))
    run.write(f"localizer/{METHOD_FILE}", run.read(saved.place(facts.method)))
    if run.config.foreground.looks:
        run.write(f"localizer/{READOUT_FILE}", saved.pack(readouts_of(run)[:1], {}))
    if isinstance(run.config.classifier, SceneNet):
        run.write("localizer/classifier.pt", run.read("classifier.pt"))
    run.write("localizer/localizer.json", facts.model_dump_json(indent=2))  # last
