"""Annotations and images -> the manifest: one row per boxed image, and the audit."""

import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from ray.data import Dataset

from sensloc import tables
from sensloc.boxes import BoxError, unit_boxes
from sensloc.classes import class_indices
from sensloc.config import Config
from sensloc.datasets import DatasetError, Reader, reader_for
from sensloc.images import ImageError, fetch, inspect
from sensloc.run import RunDir
from sensloc.splits import Split, key, keys, lowest
from sensloc.stages import ray_data

log = logging.getLogger(__name__)

ANNOTATIONS = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("wnid", pa.string()),
        ("corners", pa.list_(pa.list_(pa.float64()))),
        ("convention", pa.string()),
        ("source", pa.string()),
        ("class_name", pa.string()),
        ("size", pa.list_(pa.int64())),
        ("left_out", pa.string()),
        ("error", pa.string()),
    ]
)


def manifest(run: RunDir) -> None:
    """Annotations and images -> ``manifest/`` and ``audit.json``.

    Raises:
        DatasetError: nothing usable under the root, or an image_id that occurs twice.
    """
    config, resources = run.config, run.config.resources
    reader, classes = reader_for(config.dataset), class_indices(config.classifier)
    with run.stage("manifest", "manifest", "audit.json") as facts:
        annotated = _annotations(reader, resources.cpus_per_task).materialize()
        left_out, limit = _draw(annotated, config)
        inspected = (
            annotated.map_batches(
                partial(select, seed=config.dataset.seed, limit=limit), batch_format="pyarrow"
            )
            .repartition(target_num_rows_per_block=resources.rows_per_block)
            .map_batches(
                partial(inspect_images, connections=resources.connections),
                batch_format="pyarrow",
                num_cpus=resources.cpus_per_task,
            )
            .materialize()
        )
        split, audit = _split(inspected, config)
        assigned = inspected.map_batches(
            partial(assign, split=split, classes=classes, stamp=ray_data.stamp(run)),
            batch_format="pyarrow",
        )
        ray_data.write(assigned, run, "manifest")
        audit["left_out"] = dict(sorted(left_out.items()))
        run.write("audit.json", json.dumps(audit, indent=2))
        facts |= {name: audit[name] for name in ("images", "classes", "splits", "errors")}
    log.info("manifest: %(images)d images of %(classes)d classes, %(errors)d errors", facts)


def _annotations(reader: Reader, cpus: float) -> Dataset:
    units = [{"unit": json.dumps(unit)} for unit in reader.units()]
    return ray.data.from_items(units, override_num_blocks=min(len(units), 1000)).map_batches(
        partial(read_units, reader=reader), batch_format="pyarrow", batch_size=1, num_cpus=cpus
    )


def read_units(units: pa.Table, reader: Reader) -> Iterator[pa.Table]:
    """Units of reading work -> tables of annotations."""
    for unit in units["unit"].to_pylist():
        annotations = reader.read(json.loads(unit))
        while rows := [asdict(annotation) for annotation in islice(annotations, 1000)]:
            yield pa.Table.from_pylist(rows, ANNOTATIONS)


def _draw(annotated: Dataset, config: Config) -> tuple[Counter[str], int]:
    """Count what is left out, refuse doubles, and find the key that ends the draw of n_images."""
    left_out: Counter[str] = Counter()
    taken, usable = [], []
    for batch in ray_data.batches(annotated):
        left_out.update(reason for reason in batch["left_out"].to_pylist() if reason)
        rows = batch.filter(pc.is_null(batch["left_out"]))
        ids = keys(rows["image_id"].to_pylist(), config.dataset.seed)
        taken.append(ids)
        usable.append(ids[np.asarray(pc.is_null(rows["error"]))])
    every = np.concatenate([*taken, np.empty(0, np.uint64)])
    distinct, counts = np.unique(every, return_counts=True)
    if len(distinct) < len(every):
        _refuse_doubles(annotated, set(distinct[counts > 1].tolist()), config)
    if len(every) == 0:
        raise DatasetError(
            f"{config.dataset.root}: no image with a box in the layout "
            f"{config.dataset.layout!r} (left out: {dict(left_out)}): set dataset.root or --data"
        )
    n_images = config.dataset.n_images
    limit = (1 << 64) - 1 if n_images is None else lowest(np.concatenate(usable), n_images)
    return left_out, limit


def _refuse_doubles(annotated: Dataset, doubled: set[int], config: Config) -> None:
    found: dict[str, list[str]] = {}
    for batch in ray_data.batches(annotated):
        for row in batch.select(["image_id", "uri"]).to_pylist():
            if key(row["image_id"], config.dataset.seed) in doubled:
                found.setdefault(row["image_id"], []).append(row["uri"])
    examples = "; ".join(f"{name}: {', '.join(uris)}" for name, uris in sorted(found.items())[:5])
    raise DatasetError(
        f"{config.dataset.root}: {len(found)} image_id(s) occur more than once: {examples}. "
        "An image_id must be unique: rename the files or mend the table"
    )


def select(rows: pa.Table, seed: int, limit: int) -> pa.Table:
    """Keep the annotations that take part and were drawn."""
    rows = rows.filter(pc.is_null(rows["left_out"]))
    return rows.filter(pa.array(keys(rows["image_id"].to_pylist(), seed) <= np.uint64(limit)))


def inspect_images(rows: pa.Table, connections: int) -> pa.Table:
    """Annotations -> rows of the manifest but for split and class_index: sizes, boxes, hashes."""
    out = rows.to_pylist()
    fine = [row for row in out if row["error"] is None]
    for row, data in zip(fine, fetch([row["uri"] for row in fine], connections), strict=True):
        try:
            row |= _seen(row, data)
        except (ImageError, BoxError) as error:
            row["error"] = f"{row['uri']}: {error}"
    return pa.Table.from_pylist(out, tables.MANIFEST)


def _seen(row: dict[str, Any], data: bytes | ImageError) -> dict[str, Any]:
    """What the image itself says: width, height, content, and with them the unit boxes."""
    if isinstance(data, ImageError):
        raise data
    seen = inspect(data)
    if row["size"] not in (None, [seen.width, seen.height]):
        declared = " x ".join(map(str, row["size"]))
        raise BoxError(f"is {seen.width} x {seen.height}, its annotation says {declared}")
    boxes = unit_boxes(row["corners"], seen.width, seen.height, row["convention"])
    return asdict(seen) | {"boxes": boxes.tolist()}


def _split(inspected: Dataset, config: Config) -> tuple[Split, dict[str, Any]]:
    """Fit the split, and say what it found."""
    good: list[pa.Table] = []
    errors: list[str] = []
    for batch in ray_data.batches(inspected):
        errors += [reason for reason in batch["error"].to_pylist() if reason]
        fine = batch.filter(pc.is_null(batch["error"]))
        good.append(fine.select(["image_id", "content", "wnid"]))
    rows = pa.concat_tables(good) if good else pa.table({"content": [], "wnid": []})
    if len(rows) == 0:
        raise DatasetError(
            f"{config.dataset.root}: all {len(errors)} images have errors, the first: "
            f"{min(errors, default='none found')}"
        )
    contents, wnids = rows["content"].to_pylist(), rows["wnid"].to_pylist()
    shares = (config.split.train, config.split.validation, config.split.test)
    split = Split.from_images(contents, wnids, shares, config.split.seed)
    copies = {content: n for content, n in Counter(contents).items() if n > 1}
    names = [split(*pair) for pair in zip(contents, wnids, strict=True)]
    audit = {
        "images": len(rows),
        "classes": len(set(wnids)),
        "classes_hash": f"{key(' '.join(sorted(set(wnids))), 0):016x}",
        "images_hash": f"{sum(key(c, 0) for c in contents) % (1 << 64):016x}",
        "splits": dict(sorted(Counter(names).items())),
        "images_per_class": _spread(Counter(wnids)),
        "duplicates": {
            "contents": len(copies),
            "images": sum(copies.values()),
            "across_classes": len(split.owners),
        },
        "errors": len(errors),
        "first_errors": sorted(errors)[:20],
    }
    return split, audit


def _spread(counts: Counter[str]) -> dict[str, float]:
    values = sorted(counts.values())
    return {"min": values[0], "median": float(np.median(values)), "max": values[-1]}


def assign(
    rows: pa.Table, split: Split, classes: dict[str, int], stamp: dict[str, str]
) -> pa.Table:
    """Fill in split and class_index."""
    out = rows.to_pylist()
    for row in out:
        row["class_index"] = classes.get(row["wnid"])
        if row["error"] is None:
            row["split"] = split(row["content"], row["wnid"])
    return pa.Table.from_pylist(out, tables.MANIFEST).replace_schema_metadata(stamp)
