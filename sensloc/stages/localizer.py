"""A finished run -> ``localizer/``: all that prediction needs, and how sure it may be."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

import sensloc
from sensloc.engine import cluster, units
from sensloc.heatmaps.gradient import PREDICTED
from sensloc.images.decode import read
from sensloc.images.fetch import ImageError
from sensloc.methods import catalogue, saved
from sensloc.methods.linear import LinearBox
from sensloc.networks.classes import class_indices, class_names
from sensloc.networks.prepare import prepare
from sensloc.networks.scenes import SceneNet
from sensloc.prediction.confidence import Confidence, calibration_error, evidence, reliability
from sensloc.prediction.localizer import FORMAT, HeldOutAccuracy, LocalizerFacts
from sensloc.prediction.localizer import METHOD as METHOD_FILE
from sensloc.rows import true_boxes, vectors
from sensloc.scoring import corloc
from sensloc.stages.fit import fitted_methods
from sensloc.stages.sensitivity import load_network_of, map_maker, require_same_weights
from sensloc.store import tables
from sensloc.store.run import RunDir, RunError

log = logging.getLogger(__name__)

METHOD = catalogue.PREDICTS
JUDGED, CONFIDENCE = "judged", "confidence"

COLUMNS = (
    "image_id", "uri", "content", "split", "class_index", "predicted_index", "probability", "boxes",
    "map",
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
    resources = run.config.resources
    outputs = ("localizer", JUDGED, CONFIDENCE)
    with run.stage("localizer", *outputs, of={"weights": weights}) as facts:
        units.each(
            run,
            JUDGED,
            units.names(run, "sensitivity"),
            Judge,
            cpus=resources.cpus_per_actor,
            gpus=resources.gpus_per_actor,
            actors=resources.actors,
        )
        columns = ["image_id", "split", "recognised", "iou", "evidence", "correct", "error"]
        rows = cluster.load(run, run.files(JUDGED), columns, errors=True)
        errors = cluster.errors_of(rows)
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


class Judge:
    """A network: a file of maps in, how right the boxes of predicted classes are out."""

    def __init__(self, run: RunDir) -> None:
        config = run.config
        device = "cuda" if config.resources.gpus_per_actor else "cpu"
        torch.set_num_threads(1)
        self.run = run
        self.method = saved.of_kind(fitted_methods(run)[METHOD].method, LinearBox)
        self.make = map_maker(run, prepare(load_network_of(run), config.classifier, device), device)

    def __call__(self, unit: str) -> pa.Table:
        """Rows of ``tables.JUDGED``."""
        file = f"{self.run.path('sensitivity')}/{unit}.parquet"
        held_out = pc.field("split").isin(["validation", "test"])
        rows = cluster.load(self.run, [file], list(COLUMNS), where=held_out).combine_chunks()
        if len(rows) == 0:
            return tables.JUDGED.empty_table()
        maps = vectors(rows, "map").astype(np.float64)
        probability = np.array(rows["probability"], np.float64)
        errors: list[str | None] = [None] * len(rows)
        wrong = pc.not_equal(rows["predicted_index"], rows["class_index"])
        if self.run.config.sensitivity.label == "truth":
            self._predicted(rows, np.flatnonzero(wrong), maps, probability, errors)
        boxes = self.method.of_maps({"map": maps})
        iou = corloc.best_iou(boxes, true_boxes(rows))
        seen = evidence(probability, boxes, maps)
        right = pa.array(iou >= self.run.config.evaluate.iou)
        good = pa.array([error is None for error in errors])
        columns = {
            "image_id": rows["image_id"],
            "split": rows["split"],
            "recognised": pc.invert(wrong),
            "box": tables.fixed(boxes.astype(np.float32), pa.float32()),
            "iou": iou.astype(np.float32),
            "evidence": tables.fixed(seen, pa.float64()),
            "correct": pc.if_else(good, right, None),
            "error": pa.array(errors, pa.string()),
        }
        return pa.table(columns, tables.JUDGED)

    def _predicted(
        self, rows: pa.Table, which: Any, maps: Any, probability: Any, errors: list[str | None]
    ) -> None:
        """Fill in the maps of predicted classes, in place, for some of the rows."""
        config = self.run.config
        some = rows.take(pa.array(which))
        read_ones = read(
            some["uri"].to_pylist(), config.classifier.input_size, config.resources.connections,
            config.dataset.max_pixels, some["content"].to_pylist(),
        )  # fmt: skip
        step = config.sensitivity.batch_size
        fine = [(i, one) for i, one in zip(which, read_ones, strict=True) if _ok(one, i, errors)]
        for start in range(0, len(fine), step):
            index, pixels = zip(*fine[start : start + step], strict=True)
            made = self.make(np.stack(pixels), np.full(len(index), PREDICTED))
            for at, i in enumerate(index):
                if np.isfinite(made.scale[at]):
                    maps[i], probability[i] = made.map[at], made.probability[at]
                else:
                    errors[i] = "the derivative is not finite"


def _ok(one: Any, i: int, errors: list[str | None]) -> bool:
    if isinstance(one, ImageError):
        errors[i] = str(one)
    return not isinstance(one, ImageError)


def _of(rows: pa.Table, split: str) -> tuple[Any, Any]:
    """Evidence [n, k] and outcomes [n] of one set's rows without errors."""
    mine = rows.filter((pc.field("split") == split) & pc.field("error").is_null())
    return vectors(mine, "evidence"), np.array(mine["correct"], bool)


def _judged(confidence: Confidence, seen: Any, right: Any) -> HeldOutAccuracy:
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
    """``tables.CONFIDENCE``, as the bytes of its file."""
    good = rows.filter(pc.is_null(rows["error"])).sort_by("image_id")
    chance = confidence(vectors(good, "evidence")).astype(np.float32)
    table = good.drop_columns(["evidence", "error"]).append_column("confidence", pa.array(chance))
    return units.parquet(table.cast(tables.CONFIDENCE), cluster.stamp(run))


def _export(
    run: RunDir, weights: str, confidence: Confidence, judged: Mapping[str, HeldOutAccuracy]
) -> None:
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
        iou=config.evaluate.iou,
        confidence=confidence,
        validation=judged["validation"],
        test=judged["test"],
    )
    run.write(f"localizer/{METHOD_FILE}", run.read(saved.place(METHOD)))
    if isinstance(config.classifier, SceneNet):
        run.write("localizer/classifier.pt", run.read("classifier.pt"))
    run.write("localizer/localizer.json", facts.model_dump_json(indent=2))  # last
