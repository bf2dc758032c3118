"""Images that nobody annotated -> a class, a box and a confidence for each."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import ray
import ray.data
import torch

from sensloc.config import Config, Evaluate, Resources, absolute
from sensloc.datasets import Unboxed
from sensloc.datasets.files import IMAGE_SUFFIXES
from sensloc.datasets.images import Images
from sensloc.datasets.webdataset import WebDataset
from sensloc.engine import cluster, units
from sensloc.images import isolation
from sensloc.images.decode import Pixels, decode
from sensloc.images.fetch import ImageError, fetch
from sensloc.prediction.localizer import METHOD, Localizer, LocalizerFacts, read_facts
from sensloc.report import exports
from sensloc.stages import annotations
from sensloc.store import tables
from sensloc.store.run import RunDir, RunError

log = logging.getLogger(__name__)

BOXES = "boxes"

OUTPUTS = {"coco": "coco.json", "voc": "voc", "yolo": "yolo"}

EXPORTED = (
    "image_id", "width", "height", "wnid", "x0", "y0", "x1", "y1", "box", "confidence",
)  # fmt: skip


def prediction(localizer: str, images: str, output: str, resources: Resources) -> Config:
    """The config of a prediction: the localizer's, on other images.

    Args:
        localizer: URL of a finished run, or of its folder ``localizer``.
        images: a folder or URL, a pattern, one image, tar shards, or a table of uris.
        output: the run directory.
        resources: how fast.

    Raises:
        LocalizerError: there is no localizer.
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
    """Where images are, as a ``[dataset]``: by how the name ends, and where its pattern begins."""
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


def predict(run: RunDir, localizer: str, formats: Sequence[str] = ("coco",)) -> str:
    """The images of the run's data set -> ``boxes/``: a row for each, once.

    Args:
        run: a directory of its own.
        localizer: URL of a finished run, or of its folder ``localizer``.
        formats: of ``exports.Format``: ``coco.json``, ``voc/*.xml``, ``yolo/*.txt``.

    Raises:
        LocalizerError: there is none.
        DatasetError: no image, or two of one id.
        RunError: the localizer or the list of images has changed since an attempt that was cut
            off, or a row is lost.
    """
    folder, facts = read_facts(localizer)
    if not run.finished("predict"):
        reader = Unboxed(run.config.dataset)
        reading, listing = annotations.listed(reader)
        made_of = {"localizer": _hash(folder), "list of images": listing}
        size = run.config.resources.rows_per_block
        with run.stage(
            "predict", BOXES, annotations.WORK, of=made_of, rows_per_block=size
        ) as found:
            annotations.read_all(run, reading, reader)
            sample = annotations.draw_images(run)
            spans = sample.spans(found["rows_per_block"])
            make = partial(_make, run, folder, facts, spans, sample.selection)
            units.despite_crashes(run, BOXES, list(spans), make)
            found |= _account(run, sample.count)
        run.remove(annotations.WORK)
    for name in formats:
        if not run.finished(name):
            _export(run, name, facts)
    done = run.stages()["predict"]
    said = [f"{done['rows']:,} images, {done['errors']:,} errors", f"{run.at(BOXES)}/*.parquet"]
    return "\n".join([*said, *(run.at(OUTPUTS[name]) for name in formats)])


def _hash(folder: str) -> str:
    """Of what decides a prediction: the facts, the weights' hash among them, and the method."""
    digest = hashlib.blake2b(digest_size=16)
    for name in ("localizer.json", METHOD):
        with fsspec.open(f"{folder}/{name}", "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def _make(
    run: RunDir,
    folder: str,
    facts: LocalizerFacts,
    spans: dict[str, list[annotations.Span]],
    selection: annotations.Selection,
    todo: Sequence[str],
    isolated: bool,
) -> None:
    """The chain: a unit's images are decoded in a task, and looked at by an actor, which writes."""
    resources, size = run.config.resources, facts.classifier.input_size
    # an actor that cannot start is tried again and again: a task says why, once
    ray.get(ray.remote(num_cpus=resources.cpus_per_actor)(_check).remote(folder))
    rows = [{"unit": unit, "spans": json.dumps(spans[unit])} for unit in todo]
    made = (
        ray.data.from_items(rows, override_num_blocks=len(rows))
        .map(
            partial(look, run=run, selection=selection, size=size, isolated=isolated),
            num_cpus=resources.cpus_per_task,
            ray_remote_args_fn=cluster.for_tasks,
        )
        .map(
            PredictionActor,  # type: ignore[arg-type]
            fn_constructor_args=(run, folder),
            **units.pool(
                min(resources.actors, len(todo)),
                resources.cpus_per_actor,
                resources.gpus_per_actor,
                spare=2 * resources.cpus_per_task,
            ),
        )
    )
    units.finish(made, run, BOXES, len(todo))


def _check(folder: str) -> None:
    Localizer.load(folder)


def look(
    row: dict[str, Any],
    run: RunDir,
    selection: annotations.Selection,
    size: int,
    isolated: bool = False,
) -> dict[str, Any]:
    """A unit's images, fetched, measured and decoded: one row, however many they are.

    Args:
        row: with the unit's name, and where its images are listed.
        run: the run.
        selection: which of the listed images take part.
        size: S, in pixels.
        isolated: each image in a child process, so that one that kills it is an error.

    Returns:
        unit; rows, JSON [n]: image_id, uri, width, height, error; pixels, uint8 [n * S * S * 3]
        as plain bytes, zeros where there is an error.
    """
    annotated = annotations.read_selected(run, json.loads(row["spans"]), selection)
    rows = annotated.select(["image_id", "uri", "error"]).to_pylist()
    fine = [i for i, one in enumerate(rows) if one["error"] is None]
    uris, reading = [rows[i]["uri"] for i in fine], partial(_read, size=size, config=run.config)
    found = isolation.images(reading, uris, uris) if isolated else reading(uris)
    pixels = np.zeros((len(rows), size, size, 3), np.uint8)
    for i, one in zip(fine, found, strict=True):
        if isinstance(one, ImageError):
            rows[i]["error"] = str(one)
        else:
            (rows[i]["width"], rows[i]["height"]), pixels[i] = one
    return {"unit": row["unit"], "rows": json.dumps(rows), "pixels": pixels.tobytes()}


def _read(
    uris: Sequence[str], size: int, config: Config
) -> list[tuple[tuple[int, int], Pixels] | ImageError]:
    """Each image's width and height, and its pixels."""
    found: list[tuple[tuple[int, int], Pixels] | ImageError] = []
    limit = config.dataset.max_pixels
    for uri, data in zip(uris, fetch(uris, config.resources.connections), strict=True):
        try:
            if isinstance(data, ImageError):
                raise data
            image = decode(data, size, limit)
            found.append(((image.width, image.height), image.pixels))
        except ImageError as error:
            found.append(ImageError(f"{uri}: {error}"))
    return found


class PredictionActor:
    """A localizer, held on one device: a unit's pixels in, its file of boxes written."""

    def __init__(self, run: RunDir, folder: str) -> None:
        device = "cuda" if run.config.resources.gpus_per_actor else "cpu"
        torch.set_num_threads(1)
        self.run, self.localizer = run, Localizer.load(folder, device)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """See ``look`` for the row."""
        facts, rows = self.localizer.facts, json.loads(row["rows"])
        size, step = facts.classifier.input_size, facts.sensitivity.batch_size
        pixels = np.frombuffer(row["pixels"], np.uint8).reshape(len(rows), size, size, 3)
        for start in range(0, len(rows), step):
            self._fill(rows[start : start + step], pixels[start : start + step])
        table = pa.Table.from_pylist(rows, tables.BOXES)
        return units.write(self.run, BOXES, row["unit"], table)

    def _fill(self, rows: Sequence[dict[str, Any]], pixels: Any) -> None:
        """One batch: what is found in each image, into its row."""
        found, facts = self.localizer.find(pixels), self.localizer.facts
        for i, row in enumerate(rows):
            if row["error"] is None and not np.isfinite(found.confidence[i]):
                row["error"] = "the derivative is not finite"
            if row["error"] is not None:
                continue
            box, index = found.boxes[i], int(found.predicted[i])
            sides = np.array([row["width"], row["height"]] * 2)
            row |= dict(zip(("x0", "y0", "x1", "y1"), (box * sides).tolist(), strict=True))
            row |= {
                "wnid": facts.wnids[index],
                "class_name": facts.names[index],
                "score": float(found.score[i]),
                "probability": float(found.probability[i]),
                "box": box.tolist(),
                "confidence": float(found.confidence[i]),
            }


def _account(run: RunDir, images: int) -> dict[str, Any]:
    """Compare the table with the list of images, and count.

    Raises:
        RunError: a row is lost, or there twice.
    """
    ids = list(cluster.over_files(run, BOXES, ["image_id"], cluster.image_keys, errors=True))
    every = np.concatenate(ids)
    if not len(every) == len(np.unique(every)) == images:
        raise RunError(
            f"{run.at(BOXES)} does not hold each of {images} images exactly once: delete "
            f"{run.url} and begin anew"
        )
    failed = cluster.over_files(run, BOXES, ["error"], cluster.errors_of, errors=True)
    return {"rows": len(every), "errors": sum(failed)}


# --------------------------------------------------------------------------- other formats


def _export(run: RunDir, name: str, facts: LocalizerFacts) -> None:
    """``boxes/`` -> one of the formats.

    Raises:
        RunError: two images would have one file.
    """
    with run.stage(name, OUTPUTS[name]):
        if name == "coco":
            columns = ["uri", "error", *EXPORTED]
            rows = cluster.load(run, run.files(BOXES), columns, errors=True).sort_by("image_id")
            by_part = (row for part in rows.to_batches(1000) for row in part.to_pylist())
            run.write("coco.json", exports.coco(by_part, facts))
            return
        written = [
            path
            for part in cluster.over_files(run, BOXES, list(EXPORTED), _write, run, name, facts)
            for path in part
        ]
        twice = [path for path, count in Counter(written).items() if count > 1]
        if twice:
            raise RunError(
                f"{run.at(OUTPUTS[name])}: {len(twice)} files are of more than one image, the "
                f"first {min(twice)}: rename the images, or take the boxes from {BOXES}/ or COCO"
            )
        if name == "yolo":
            run.write("yolo/classes.txt", "".join(f"{wnid}\n" for wnid in facts.wnids))


def _write(rows: pa.Table, run: RunDir, name: str, facts: LocalizerFacts) -> list[str]:
    """A file for each image that has a box; returns their paths."""
    classes = {wnid: i for i, wnid in enumerate(facts.wnids)}
    written = []
    for row in rows.to_pylist():
        path = f"{OUTPUTS[name]}/{exports.place(row['image_id'])}"
        if name == "voc":
            written.append(f"{path}.xml")
            run.write(written[-1], exports.voc(row))
        else:
            written.append(f"{path}.txt")
            run.write(written[-1], exports.yolo(row, classes))
    return written
