"""Annotations and images -> the manifest: one row per boxed image, and the audit.

Four passes, each of units that are never done twice: the annotations are read
(``work/annotations``); the driver draws from their ids; the images are inspected
(``work/inspected``), which is the long part; the driver fits the split to their contents; the
rows get their sets (``manifest``). The driver keeps some 40 bytes per annotated image.
"""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from heapq import nsmallest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sensloc.boxes import BoxError, unit_boxes
from sensloc.datasets.split import Split
from sensloc.dice import key, keys
from sensloc.engine import cluster, units
from sensloc.errors import DatasetError, one_line
from sensloc.images.fetch import ImageError, fetch
from sensloc.images.inspection import inspect
from sensloc.networks.classes import class_indices
from sensloc.stages.annotations import (
    WORK,
    Selection,
    Span,
    draw_images,
    listed,
    read_all,
    read_selected,
    sharing,
)
from sensloc.store import tables
from sensloc.store.files import load_unit
from sensloc.store.run import RunDir, RunError

log = logging.getLogger(__name__)

INSPECTED = f"{WORK}/inspected"

FIRST_ERRORS = 20
"""Errors that the audit names."""


def manifest(run: RunDir) -> None:
    """Annotations and images -> ``manifest/`` and ``audit.json``.

    Raises:
        DatasetError: nothing usable under the root, fewer images than ``n_images``, or an image_id
            that occurs twice.
        RunError: the data set has changed since an attempt that was cut off, or a row is lost.
    """
    config = run.config
    reader, classes = config.dataset, class_indices(config.classifier)
    reading, listing = listed(reader)
    with run.stage(
        "manifest",
        *("manifest", "audit.json", WORK),
        of={"data set's listing": listing},
        **sharing(config),
    ) as facts:
        try:
            read_all(run, reading, reader)
            sample = draw_images(run)
            spans = sample.shared(facts, config.sensitivity.nominal_batch)
            units.each(run, INSPECTED, spans, inspect_images, sample.selection)
            split, audit = fit_split(run)
        except DatasetError:  # to be mended in the data set, which is then read anew
            run.remove(WORK)
            raise
        units.each(run, "manifest", {unit: unit for unit in spans}, assign, split, classes)
        audit |= tally(run)
        audit |= {"left_out": dict(sorted(sample.left_out.items()))}
        audit |= {"not_drawn": sample.not_drawn}
        rows = audit["images"] + audit["errors"]
        if rows != sample.count or not cluster.same_rows(run, "manifest", INSPECTED):
            raise RunError(
                f"{run.at('manifest')} does not hold each of {sample.count} drawn images exactly "
                "once: delete that run directory and begin anew"
            )
        run.write("audit.json", json.dumps(audit, indent=2))
        facts |= {name: audit[name] for name in ("images", "classes", "splits", "errors")}
    run.remove(WORK)
    log.info("manifest: %(images)d images of %(classes)d classes, %(errors)d errors", facts)


# --------------------------------------------------------------------------- the images


def inspect_images(run: RunDir, spans: Sequence[Span], selection: Selection) -> pa.Table:
    """Look at annotated images: the manifest's rows but for split and class_index."""
    rows = read_selected(run, spans, selection).to_pylist()
    usable = [row for row in rows if row["error"] is None]
    fetched = fetch([row["uri"] for row in usable], run.config.resources.connections)
    for row, data in zip(usable, fetched, strict=True):
        try:
            row |= _seen(row, data, run.config.dataset.max_pixels)
        except (ImageError, BoxError) as error:
            row["error"] = one_line(f"{row['uri']}: {error}")
    return pa.Table.from_pylist(rows, tables.MANIFEST)


def _seen(row: dict[str, Any], data: bytes | ImageError, max_pixels: int) -> dict[str, Any]:
    """Return what the image itself says: width, height, content, and with them the unit boxes."""
    if isinstance(data, ImageError):
        raise data
    header = inspect(data, max_pixels)
    if row["size"] not in (None, [header.width, header.height]):
        declared = " x ".join(map(str, row["size"]))
        raise BoxError(f"is {header.width} x {header.height}, its annotation says {declared}")
    boxes = unit_boxes(row["corners"], header.width, header.height, row["convention"])
    return asdict(header) | {"boxes": boxes.tolist()}


# --------------------------------------------------------------------------- the split


def fit_split(run: RunDir) -> tuple[Split, dict[str, Any]]:
    """Fit the split to the contents of the images, and count copies for the audit."""
    config = run.config
    columns = ["content", "wnid", "error"]
    parts = list(cluster.over_files(run, INSPECTED, columns, _contents, config.split.seed))
    classes = sorted({wnid for *_, names in parts for wnid in names})
    if not classes:
        _refuse_errors(run)
    code = {wnid: i for i, wnid in enumerate(classes)}
    values = np.concatenate([hashes for hashes, *_ in parts])
    codes = np.concatenate(
        [np.array([code[n] for n in names], np.int32)[at] for _, at, names in parts if names]
    )
    shares = (config.split.train, config.split.validation, config.split.test)
    split = Split.from_keys(values, codes, classes, shares, config.split.seed)
    _, copies = np.unique(values, return_counts=True)
    duplicates = {
        "contents": int((copies > 1).sum()),
        "images": int(copies[copies > 1].sum()),
        "across_classes": len(split.owners),
    }
    return split, {"duplicates": duplicates}


def _contents(rows: pa.Table, seed: int) -> tuple[Any, Any, list[str]]:
    """Return hashes of the contents [n], indices of the classes [n], and the classes."""
    encoded = pc.dictionary_encode(rows["wnid"].combine_chunks())
    at = np.asarray(encoded.indices).astype(np.int32)
    return keys(rows["content"].to_pylist(), seed), at, encoded.dictionary.to_pylist()


def _refuse_errors(run: RunDir) -> None:
    """Raise an error about a data set in which each image has an error."""
    by_file = cluster.over_files(run, INSPECTED, ["error"], _errors, errors=True)
    errors = [reason for of_file in by_file for reason in of_file]
    raise DatasetError(
        f"{run.config.dataset.root}: all {len(errors)} images have errors, the first: "
        f"{min(errors, default='none found')}"
    )


def _errors(rows: pa.Table) -> list[str]:
    """Return the errors among rows."""
    return [reason for reason in rows["error"].to_pylist() if reason]


def assign(run: RunDir, unit: str, split: Split, classes: Mapping[str, int]) -> pa.Table:
    """Return a unit of ``work/inspected`` with split and class_index filled in."""
    rows = load_unit(run, INSPECTED, unit).to_pylist()
    for row in rows:
        row["class_index"] = classes.get(row["wnid"])
        if row["error"] is None:
            row["split"] = split(row["content"], row["wnid"])
    return pa.Table.from_pylist(rows, tables.MANIFEST)


# --------------------------------------------------------------------------- the audit


def tally(run: RunDir) -> dict[str, Any]:
    """Count what the finished table holds: integers and sums, so no order matters."""
    columns = ["wnid", "split", "content", "error"]
    classes, splits, hashes, first, n_errors = Counter[str](), Counter[str](), 0, list[str](), 0
    for names, sets, total, errors, failed in cluster.over_files(
        run, "manifest", columns, _tally, errors=True
    ):
        classes, splits = classes + names, splits + sets
        hashes, n_errors = (hashes + total) % (1 << 64), n_errors + failed
        first = nsmallest(FIRST_ERRORS, first + errors)
    return {
        "images": classes.total(),
        "classes": len(classes),
        "classes_hash": f"{key(' '.join(sorted(classes)), 0):016x}",
        "images_hash": f"{hashes:016x}",
        "splits": dict(sorted(splits.items())),
        "images_per_class": _spread(classes),
        "errors": n_errors,
        "first_errors": first,
    }


def _tally(rows: pa.Table) -> tuple[Counter[str], Counter[str], int, list[str], int]:
    """Return images by class and by set, the contents' hashes' sum, first errors, and errors."""
    errors = _errors(rows)
    good = rows.filter(pc.is_null(rows["error"]))
    total = sum(key(content, 0) for content in good["content"].to_pylist())
    first = nsmallest(FIRST_ERRORS, errors)
    names, sets = (Counter(good[column].to_pylist()) for column in ("wnid", "split"))
    return names, sets, total % (1 << 64), first, len(errors)


def _spread(counts: Counter[str]) -> dict[str, float]:
    """Return the least, the median and the largest count."""
    values = sorted(counts.values())
    return {"min": values[0], "median": float(np.median(values)), "max": values[-1]}
