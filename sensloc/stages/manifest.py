"""Annotations and images -> the manifest: one row per boxed image, and the audit.

Four passes, each of units that are never done twice: the annotations are read
(``work/annotations``); the driver draws from their ids; the images are inspected
(``work/inspected``), which is the long part; the driver fits the split to their contents; the
rows get their sets (``manifest``). The driver keeps some 40 bytes per annotated image.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from heapq import nsmallest
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sensloc.boxes import BoxError, unit_boxes
from sensloc.datasets import Reader, reader_for
from sensloc.datasets.annotation import Unit
from sensloc.datasets.split import Split
from sensloc.dice import key, keys, lowest
from sensloc.engine import cluster, units
from sensloc.errors import DatasetError, one_line
from sensloc.images.fetch import ImageError, fetch, inspect
from sensloc.networks.classes import class_indices
from sensloc.store import tables
from sensloc.store.files import ROWS_PER_GROUP, load_unit
from sensloc.store.run import RunDir, RunError

log = logging.getLogger(__name__)

WORK = "work"
ANNOTATIONS = "work/annotations"
INSPECTED = "work/inspected"
FIRST_ERRORS = 20

Span = tuple[str, int, int]
"""Rows of a unit of ``work/annotations``: its name, the first, and the one after the last."""

Draw = tuple[int, int]
"""What ``select`` takes an image by: seed and limit of a ``Drawn``."""

ANNOTATION = pa.schema(
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
        RunError: the data set has changed since an attempt that was cut off, or a row is lost.
    """
    config = run.config
    reader, classes = reader_for(config.dataset), class_indices(config.classifier)
    reading = {f"{i:05d}": unit for i, unit in enumerate(reader.units())}
    listing = f"{key(json.dumps(reading), 0):016x}"
    with run.stage(
        "manifest",
        *("manifest", "audit.json", WORK),
        of={"data set's listing": listing},
        rows_per_block=config.resources.rows_per_block,
    ) as facts:
        try:
            units.each_quick(run, ANNOTATIONS, reading, read_annotations, reader)
            drawn = draw(run)
            spans = drawn.spans(facts["rows_per_block"])
            units.each_quick(run, INSPECTED, spans, inspect_images, drawn.seed, drawn.limit)
            split, audit = fit_split(run)
        except DatasetError:  # to be mended in the data set, which is then read anew
            run.remove(WORK)
            raise
        units.each_quick(run, "manifest", {unit: unit for unit in spans}, assign, split, classes)
        audit |= tally(run)
        audit |= {"left_out": dict(sorted(drawn.left_out.items())), "not_drawn": drawn.not_drawn}
        rows = audit["images"] + audit["errors"]
        if rows != drawn.count or not cluster.same_rows(run, "manifest", INSPECTED):
            raise RunError(
                f"{run.at('manifest')} does not hold each of {drawn.count} drawn images exactly "
                "once: delete that run directory and begin anew"
            )
        run.write("audit.json", json.dumps(audit, indent=2))
        facts |= {name: audit[name] for name in ("images", "classes", "splits", "errors")}
    run.remove(WORK)
    log.info("manifest: %(images)d images of %(classes)d classes, %(errors)d errors", facts)


# --------------------------------------------------------------------------- annotations


def read_annotations(run: RunDir, unit: Unit, reader: Reader) -> pa.Table:
    """All annotations of one of the reader's units."""
    annotations = reader.read(unit)
    return pa.concat_tables([ANNOTATION.empty_table(), *_tables(annotations)])


def _tables(annotations: Iterator[Any]) -> Iterator[pa.Table]:
    while rows := [asdict(annotation) for annotation in islice(annotations, 1000)]:
        yield pa.Table.from_pylist(rows, ANNOTATION)


# --------------------------------------------------------------------------- the draw


@dataclass(frozen=True)
class Drawn:
    """Which annotated images take part, and why the others do not.

    Attributes:
        seed: of the hash of an image's id.
        limit: the largest hash that takes part.
        taken: by unit of ``work/annotations``: which of its rows take part, ascending.
        left_out: reason -> images.
        not_drawn: images that n_images left over.
    """

    seed: int
    limit: int
    taken: Mapping[str, npt.NDArray[np.int32]]
    left_out: Mapping[str, int]
    not_drawn: int

    @property
    def count(self) -> int:
        """Images that take part."""
        return sum(map(len, self.taken.values()))

    def spans(self, size: int) -> dict[str, list[Span]]:
        """Units of ``size`` images in a row, the last one of what is left."""
        cut: dict[str, list[Span]] = {}
        begun: list[Span] = []
        room = size
        for unit, rows in self.taken.items():
            at = 0
            while at < len(rows):
                some = rows[at : at + room]
                begun.append((unit, int(some[0]), int(some[-1]) + 1))
                at, room = at + len(some), room - len(some)
                if room == 0:
                    cut[f"{len(cut):06d}"], begun, room = begun, [], size
        return cut | ({f"{len(cut):06d}": begun} if begun else {})


def select(rows: pa.Table, seed: int, limit: int) -> pa.Table:
    """The annotations that take part."""
    rows = rows.filter(pc.is_null(rows["left_out"]))
    taken = keys(rows["image_id"].to_pylist(), seed) <= np.uint64(limit)
    return rows.filter(pa.array(taken, pa.bool_()))


def draw(run: RunDir) -> Drawn:
    """Count what is left out, refuse doubles, and find the key that ends the draw of n_images."""
    config = run.config.dataset
    found = cluster.by_file(
        run, ANNOTATIONS, ["image_id", "left_out", "error"], _candidates, config.seed
    )
    left_out = sum((one for *_, one in found.values()), Counter[str]())
    every = _joined([hashes for hashes, *_ in found.values()])
    usable = _joined([hashes[good] for hashes, good, *_ in found.values()])
    _refuse_doubles(run, every)
    if len(every) == 0:
        raise DatasetError(
            f"{config.root}: no image with a box in the layout "
            f"{config.layout!r} (left out: {dict(left_out)}): set dataset.root or --data"
        )
    wanted = config.n_images
    if wanted is not None and wanted > len(usable):
        raise DatasetError(
            f"dataset.n_images is {wanted}, the data set has {len(usable)} usable images"
        )
    limit = (1 << 64) - 1 if wanted is None else lowest(usable, wanted)
    taken = {
        unit: positions[hashes <= np.uint64(limit)]
        for unit, (hashes, _, positions, _) in zip(
            units.names(run, ANNOTATIONS), found.values(), strict=True
        )
    }
    not_drawn = len(every) - sum(map(len, taken.values()))
    return Drawn(config.seed, limit, taken, left_out, not_drawn)


def _candidates(rows: pa.Table, seed: int) -> tuple[Any, Any, Any, Counter[str]]:
    """Of the rows that are not left out: hashes, which have no error, positions; and the rest."""
    positions = np.flatnonzero(np.asarray(pc.is_null(rows["left_out"])))
    left_out = Counter(reason for reason in rows["left_out"].to_pylist() if reason)
    rows = rows.take(pa.array(positions))
    hashes = keys(rows["image_id"].to_pylist(), seed)
    return hashes, np.asarray(pc.is_null(rows["error"])), positions.astype(np.int32), left_out


def _joined(arrays: Sequence[npt.NDArray[np.uint64]]) -> npt.NDArray[np.uint64]:
    return np.concatenate([*arrays, np.empty(0, np.uint64)])


def _refuse_doubles(run: RunDir, every: npt.NDArray[np.uint64]) -> None:
    config = run.config.dataset
    ordered = np.sort(every)
    doubled = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if not doubled:
        return
    found: dict[str, list[str]] = {}
    columns = ["image_id", "uri", "left_out"]
    for rows in cluster.over_files(
        run, ANNOTATIONS, columns, _of, doubled, config.seed, errors=True
    ):
        for row in rows:
            found.setdefault(row["image_id"], []).append(row["uri"])
    examples = "; ".join(f"{name}: {', '.join(sorted(u))}" for name, u in sorted(found.items())[:5])
    raise DatasetError(
        f"{config.root}: {len(found)} image_id(s) occur more than once: {examples}. "
        "An image_id must be unique: rename the files or mend the table"
    )


def _of(rows: pa.Table, doubled: set[int], seed: int) -> list[dict[str, Any]]:
    rows = rows.filter(pc.is_null(rows["left_out"])).to_pylist()
    return [row for row in rows if key(row["image_id"], seed) in doubled]


# --------------------------------------------------------------------------- the images


def inspect_images(run: RunDir, spans: Sequence[Span], seed: int, limit: int) -> pa.Table:
    """Annotations -> the manifest but for split and class_index: sizes, boxes, hashes."""
    rows = pa.concat_tables([read_span(run, *span) for span in spans])
    out = select(rows, seed, limit).to_pylist()
    fine = [row for row in out if row["error"] is None]
    fetched = fetch([row["uri"] for row in fine], run.config.resources.connections)
    for row, data in zip(fine, fetched, strict=True):
        try:
            row |= _seen(row, data, run.config.dataset.max_pixels)
        except (ImageError, BoxError) as error:
            row["error"] = one_line(f"{row['uri']}: {error}")
    return pa.Table.from_pylist(out, tables.MANIFEST)


def read_span(run: RunDir, unit: str, start: int, stop: int) -> pa.Table:
    """Some rows of a file; no more groups of rows are read than they need."""
    size = ROWS_PER_GROUP
    with run.filesystem.open(run.file(ANNOTATIONS, unit), "rb") as file:
        groups = range(start // size, -(-stop // size))
        rows = pq.ParquetFile(file).read_row_groups(list(groups))
    return rows.slice(start - groups.start * size, stop - start)


def _seen(row: dict[str, Any], data: bytes | ImageError, max_pixels: int) -> dict[str, Any]:
    """What the image itself says: width, height, content, and with them the unit boxes."""
    if isinstance(data, ImageError):
        raise data
    seen = inspect(data, max_pixels)
    if row["size"] not in (None, [seen.width, seen.height]):
        declared = " x ".join(map(str, row["size"]))
        raise BoxError(f"is {seen.width} x {seen.height}, its annotation says {declared}")
    boxes = unit_boxes(row["corners"], seen.width, seen.height, row["convention"])
    return asdict(seen) | {"boxes": boxes.tolist()}


# --------------------------------------------------------------------------- the split


def fit_split(run: RunDir) -> tuple[Split, dict[str, Any]]:
    """Fit the split to the contents of the images, and count copies."""
    config = run.config
    columns = ["content", "wnid", "error"]
    parts = list(cluster.over_files(run, INSPECTED, columns, _contents, config.split.seed))
    classes = sorted({wnid for *_, names in parts for wnid in names})
    if not classes:
        _refuse_errors(run)
    code = {wnid: i for i, wnid in enumerate(classes)}
    values = _joined([hashes for hashes, *_ in parts])
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
    """Hashes of the contents [n], indices of the classes [n], and the classes."""
    encoded = pc.dictionary_encode(rows["wnid"].combine_chunks())
    at = np.asarray(encoded.indices).astype(np.int32)
    return keys(rows["content"].to_pylist(), seed), at, encoded.dictionary.to_pylist()


def _refuse_errors(run: RunDir) -> None:
    found = cluster.over_files(run, INSPECTED, ["error"], _errors, errors=True)
    errors = [reason for part in found for reason in part]
    raise DatasetError(
        f"{run.config.dataset.root}: all {len(errors)} images have errors, the first: "
        f"{min(errors, default='none found')}"
    )


def _errors(rows: pa.Table) -> list[str]:
    return [reason for reason in rows["error"].to_pylist() if reason]


def assign(run: RunDir, unit: str, split: Split, classes: Mapping[str, int]) -> pa.Table:
    """A unit of ``work/inspected`` with split and class_index filled in."""
    out = load_unit(run, INSPECTED, unit).to_pylist()
    for row in out:
        row["class_index"] = classes.get(row["wnid"])
        if row["error"] is None:
            row["split"] = split(row["content"], row["wnid"])
    return pa.Table.from_pylist(out, tables.MANIFEST)


# --------------------------------------------------------------------------- the audit


def tally(run: RunDir) -> dict[str, Any]:
    """What the finished table holds: integers and sums, so no order matters."""
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
    errors = _errors(rows)
    good = rows.filter(pc.is_null(rows["error"]))
    total = sum(key(content, 0) for content in good["content"].to_pylist())
    first = nsmallest(FIRST_ERRORS, errors)
    names, sets = (Counter(good[column].to_pylist()) for column in ("wnid", "split"))
    return names, sets, total % (1 << 64), first, len(errors)


def _spread(counts: Counter[str]) -> dict[str, float]:
    values = sorted(counts.values())
    return {"min": values[0], "median": float(np.median(values)), "max": values[-1]}
