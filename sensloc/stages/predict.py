"""Predict: a class, a box and a confidence for each of some images that nobody annotated."""

import hashlib
import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import pyarrow as pa

from sensloc.config import Config, Evaluate, Resources, absolute
from sensloc.datasets import Unboxed
from sensloc.datasets.files import IMAGE_SUFFIXES
from sensloc.datasets.images import Images
from sensloc.datasets.webdataset import WebDataset
from sensloc.engine import cluster
from sensloc.engine.batches import Worker
from sensloc.engine.chain import FILE, Chain, Rows, write_units
from sensloc.images.pixels import Pixels
from sensloc.prediction.facts import METHOD, READOUT, LocalizerFacts, read_facts
from sensloc.stages import annotations, export
from sensloc.stages.export import BOXES
from sensloc.store import tables
from sensloc.store.files import errors_of, image_keys
from sensloc.store.run import RunDir, RunError

if TYPE_CHECKING:
    from sensloc.prediction.localizer import PredictedBatch

log = logging.getLogger(__name__)


def prediction(localizer: str, images: str, output: str, resources: Resources) -> Config:
    """Return the config of a prediction: the localizer's, on other images.

    Args:
        localizer: URL of a finished run, or of its folder ``localizer``.
        images: A folder or URL, a pattern, one image, tar shards, or a table of uris.
        output: The run directory.
        resources: How fast the prediction is.

    Raises:
        LocalizerError: There is no localizer.
    """
    _, facts = read_facts(localizer)
    return Config(
        name=facts.run,
        output=absolute(output),
        dataset=images_at(absolute(images)),
        classifier=facts.classifier,
        sensitivity=facts.sensitivity,
        evaluate=Evaluate(iou=facts.iou),
        resources=resources,
    )


def images_at(place: str) -> Images | WebDataset:
    """Return the ``[dataset]`` of a place, by how its name ends and where its pattern begins."""
    folder, _, name = place.rpartition("/")
    if name.lower().endswith(".tar"):
        return WebDataset(layout="webdataset", root=folder, shards=name)
    if name.lower().endswith((".csv", ".parquet")):
        return Images(layout="images", root=folder, file=name)
    if "*" in place or "?" in place:
        parts = place.split("/")
        first = next(i for i, part in enumerate(parts) if "*" in part or "?" in part)
        root, pattern = "/".join(parts[:first]), "/".join(parts[first:])
        return Images(layout="images", root=root, pattern=pattern)
    if name.lower().endswith(IMAGE_SUFFIXES):
        return Images(layout="images", root=folder, pattern=name)
    return Images(layout="images", root=place)


def predict(
    run: RunDir, localizer: str, formats: Sequence[str] = ("coco",), review: int = 0
) -> str:
    """Write a row of ``boxes/`` for each image of the run's data set, once.

    Args:
        run: A directory of its own.
        localizer: URL of a finished run, or of its folder ``localizer``.
        formats: Further files, by ``exports.Format``, see ``export.OUTPUTS``.
        review: How many of the least confident images are written into ``review/`` too.

    Returns:
        The lines that say what was written.

    Raises:
        LocalizerError: There is no localizer.
        DatasetError: There is no image, or there are two of one id.
        RunError: The localizer or the list of images has changed since an attempt that was cut
            off, or a row is lost; or the images lie in tar shards, and are for Label Studio.
    """
    folder, facts = read_facts(localizer)
    export.require_shown(run, formats)
    if not run.finished("predict"):
        reader = Unboxed(run.config.dataset)
        reading, listing = annotations.listed(reader)
        made_of = {"localizer": _hash(folder), "list of images": listing}
        work, sharing = annotations.WORK, annotations.sharing(run.config)
        with run.stage("predict", BOXES, work, of=made_of, **sharing) as record:
            annotations.read_all(run, reading, reader)
            sample = annotations.draw_images(run)
            selected = partial(_rows, selection=sample.selection)
            spans = sample.shared(record, run.config.sensitivity.nominal_batch)
            write_units(chain(run, selected, folder, facts), spans)
            record |= _account(run, sample.count)
        run.remove(work)
    for name in formats:
        if not run.finished(name):
            export.export(run, name, facts)
    done = run.stages()["predict"]
    lines = [f"{done['rows']:,} images, {done['errors']:,} errors", f"{run.at(BOXES)}/*.parquet"]
    lines += [run.at(file) for name in formats for file in export.OUTPUTS[name]]
    if review:
        lines.append(export.review(run, review, formats, localizer, facts))
    return "\n".join(lines)


def chain(run: RunDir, rows: Rows, folder: str, facts: LocalizerFacts) -> Chain:
    """Return how the images of a unit get their boxes from a localizer's folder."""
    return Chain(
        run,
        BOXES,
        rows=rows,
        worker=partial(Finder, folder=folder),
        keep=facts.looks == 2,
    )


def _hash(folder: str) -> str:
    """Hash what decides a prediction: the facts, the weights' hash among them, and the method."""
    digest = hashlib.blake2b(digest_size=16)
    files = fsspec.core.url_to_fs(folder)
    for name in ("localizer.json", METHOD, READOUT):
        if files[0].exists(f"{files[1]}/{name}"):
            digest.update(files[0].cat_file(f"{files[1]}/{name}"))
    return digest.hexdigest()


def _rows(
    run: RunDir, spans: Sequence[annotations.Span], selection: annotations.Selection
) -> pa.Table:
    """Return the images of a unit as rows whose width and height are not known yet."""
    annotated = annotations.read_selected(run, spans, selection)
    images = annotated.select(["image_id", "uri", "error"])
    unknown = pa.nulls(len(images), pa.int32())
    rows = images.append_column("width", unknown).append_column("height", unknown)
    return rows.combine_chunks()


class Finder(Worker):
    """A localizer: rows and their images in, rows with a box each out."""

    def __init__(self, device: str, folder: str) -> None:
        from sensloc.prediction.localizer import Localizer

        self.localizer = Localizer.load(folder, device)

    def __call__(self, rows: pa.Table, pixels: Pixels) -> pa.Table:
        """Return rows of ``tables.BOXES``."""
        kept = FILE in rows.column_names
        files = rows[FILE].to_pylist() if kept else [None] * len(rows)
        found = self.localizer.find(pixels, files)
        boxed = (rows.drop_columns(FILE) if kept else rows).to_pylist()
        for i, row in enumerate(boxed):
            if row["error"] is None and not np.isfinite(found.confidence[i]):
                row["error"] = "the derivative is not finite"
            if row["error"] is None:
                row |= self._box(found, i, row["width"], row["height"])
        return pa.Table.from_pylist(boxed, tables.BOXES)

    def _box(self, found: "PredictedBatch", i: int, width: int, height: int) -> dict[str, Any]:
        """Return the columns of image i, of so many pixels."""
        facts, box, index = self.localizer.facts, found.boxes[i], int(found.predicted[i])
        corners = box * np.array([width, height] * 2)
        return dict(zip(("x0", "y0", "x1", "y1"), corners.tolist(), strict=True)) | {
            "wnid": facts.wnids[index],
            "class_name": facts.names[index],
            "score": float(found.score[i]),
            "probability": float(found.probability[i]),
            "box": box.tolist(),
            "confidence": float(found.confidence[i]),
            "readout": found.readout and found.readout[i],
        }


def _account(run: RunDir, images: int) -> dict[str, Any]:
    """Compare the table with the list of images, and count rows and errors.

    Raises:
        RunError: A row is lost, or there twice.
    """
    hashes = np.concatenate(
        list(cluster.over_files(run, BOXES, ["image_id"], image_keys, errors=True))
    )
    if not len(hashes) == len(np.unique(hashes)) == images:
        raise RunError(
            f"{run.at(BOXES)} does not hold each of {images} images exactly once: delete "
            f"{run.url} and begin anew"
        )
    errors = sum(cluster.over_files(run, BOXES, ["error"], errors_of, errors=True))
    return {"rows": len(hashes), "errors": errors}
