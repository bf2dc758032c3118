"""The annotations of a data set in ``work/annotations``, and the draw of the images among them.

The driver sees image ids and reasons alone; workers read the rest of the rows that they need.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sensloc.config import Config
from sensloc.datasets import Reader
from sensloc.datasets.annotation import Unit
from sensloc.dice import key, keys, lowest
from sensloc.engine import cluster, units
from sensloc.errors import DatasetError
from sensloc.store import tables
from sensloc.store.files import ROWS_PER_GROUP
from sensloc.store.run import RunDir

WORK = "work"
"""The folder of what is deleted once the images are through."""

ANNOTATIONS = f"{WORK}/annotations"

Hashes = npt.NDArray[np.uint64]

Span = tuple[str, int, int]
"""Rows of a unit of ``work/annotations``: its name, the first, and the one after the last."""


def listed(reader: Reader) -> tuple[dict[str, Unit], str]:
    """Return a reader's units of work by number, and a hash of them all: 16 hex digits."""
    reading = {f"{i:05d}": unit for i, unit in enumerate(reader.units())}
    return reading, f"{key(json.dumps(reading), 0):016x}"


def read_all(run: RunDir, reading: Mapping[str, Unit], reader: Reader) -> None:
    """Read a data set's annotations into ``work/annotations``, a file per unit."""
    units.each(run, ANNOTATIONS, dict(reading), _read, reader)


def _read(run: RunDir, unit: Unit, reader: Reader) -> pa.Table:
    """Return all annotations of a unit."""
    return pa.concat_tables([tables.ANNOTATION.empty_table(), *_parts(reader.read(unit))])


def _parts(annotations: Iterator[Any]) -> Iterator[pa.Table]:
    """Yield annotations as tables of some rows: as Python values they are many times as large."""
    while rows := [asdict(annotation) for annotation in islice(annotations, 1000)]:
        yield pa.Table.from_pylist(rows, tables.ANNOTATION)


# --------------------------------------------------------------------------- the draw


@dataclass(frozen=True)
class Selection:
    """The rule by which an annotation takes part: its id's hash is small enough.

    Attributes:
        seed: of the hash.
        limit: the largest hash that takes part.
    """

    seed: int
    limit: int

    def of(self, rows: pa.Table) -> pa.Table:
        """Return the rows that take part."""
        rows = rows.filter(pc.is_null(rows["left_out"]))
        chosen = keys(rows["image_id"].to_pylist(), self.seed) <= np.uint64(self.limit)
        return rows.filter(pa.array(chosen, pa.bool_()))


@dataclass(frozen=True)
class ImageSample:
    """The annotated images that take part, and why the others do not.

    Attributes:
        selection: the rule.
        positions: by unit of ``work/annotations``: which of its rows take part, ascending.
        left_out: images by reason.
        not_drawn: images that n_images left over.
    """

    selection: Selection
    positions: Mapping[str, npt.NDArray[np.int32]]
    left_out: Mapping[str, int]
    not_drawn: int

    @property
    def count(self) -> int:
        """How many images take part."""
        return sum(map(len, self.positions.values()))

    def shared(self, settled: Mapping[str, int], batch_size: int) -> dict[str, list[Span]]:
        """Cut the images into units as ``sharing`` has settled it: see ``unit_sizes``."""
        most, actors = settled["rows_per_block"], settled["actors"]
        return self.spans(unit_sizes(self.count, most, actors, batch_size))

    def spans(self, sizes: Iterable[int]) -> dict[str, list[Span]]:
        """Cut the images into units of these sizes in a row, the last one of what is left."""
        cut: dict[str, list[Span]] = {}
        begun: list[Span] = []
        left = iter(sizes)
        room = next(left, 0)
        for unit, rows in self.positions.items():
            at = 0
            while at < len(rows):
                run = rows[at : at + room]
                begun.append((unit, int(run[0]), int(run[-1]) + 1))
                at, room = at + len(run), room - len(run)
                if room == 0:
                    cut[f"{len(cut):06d}"], begun, room = begun, [], next(left, 0)
        return cut | ({f"{len(cut):06d}": begun} if begun else {})


def sharing(config: Config) -> dict[str, Any]:
    """Return what an attempt of a stage settles about units, for those that go on with it."""
    resources = config.resources
    return {"rows_per_block": resources.rows_per_block, "actors": resources.actors}


def unit_sizes(count: int, most: int, actors: int, batch_size: int) -> Iterator[int]:
    """Yield the sizes of units, so that one actor has as much to do as another.

    Units are whole batches but for the last, differ by one batch at most, and are a multiple of the
    actors: three units of 256, 256 and 147 images would keep one of two actors waiting.

    Args:
        count: Images.
        most: Images of a unit at most.
        actors: Among which the units are shared.
        batch_size: Images of a pass.
    """
    batch = min(batch_size, most)
    batches = -(-count // batch)
    fewest = -(-batches // (most // batch))
    units = min(-(-fewest // actors) * actors, batches)
    for i in range(units):
        size = batch * (batches // units + (i < batches % units))
        yield min(size, count)
        count -= size


def draw_images(run: RunDir) -> ImageSample:
    """Count what is left out, refuse doubles, and draw n_images of those that have no error.

    Raises:
        DatasetError: no image has a box, fewer are usable than ``n_images``, or an image_id occurs
            twice.
    """
    config = run.config.dataset
    columns = ["image_id", "left_out", "error"]
    by_file = cluster.by_file(run, ANNOTATIONS, columns, _candidates, config.seed)
    left_out = sum((reasons for *_, reasons in by_file.values()), Counter[str]())
    every = _joined([hashes for hashes, *_ in by_file.values()])
    usable = _joined([hashes[good] for hashes, good, *_ in by_file.values()])
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
    positions = {
        unit: rows[hashes <= np.uint64(limit)]
        for unit, (hashes, _, rows, _) in zip(
            units.names(run, ANNOTATIONS), by_file.values(), strict=True
        )
    }
    not_drawn = len(every) - sum(map(len, positions.values()))
    return ImageSample(Selection(config.seed, limit), positions, left_out, not_drawn)


def _candidates(rows: pa.Table, seed: int) -> tuple[Hashes, Any, Any, Counter[str]]:
    """Return, of the rows not left out, hashes, which have no error, positions; and the reasons."""
    positions = np.flatnonzero(np.asarray(pc.is_null(rows["left_out"])))
    reasons = Counter(reason for reason in rows["left_out"].to_pylist() if reason)
    rows = rows.take(pa.array(positions))
    hashes = keys(rows["image_id"].to_pylist(), seed)
    return hashes, np.asarray(pc.is_null(rows["error"])), positions.astype(np.int32), reasons


def _joined(arrays: Sequence[Hashes]) -> Hashes:
    """Join arrays, of which there may be none."""
    return np.concatenate([*arrays, np.empty(0, np.uint64)])


def _refuse_doubles(run: RunDir, every: Hashes) -> None:
    """Make sure that each image id is there once.

    Raises:
        DatasetError: one is not; names it and its places.
    """
    config = run.config.dataset
    ordered = np.sort(every)
    doubled = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if not doubled:
        return
    uris: dict[str, list[str]] = {}
    columns = ["image_id", "uri", "left_out"]
    for rows in cluster.over_files(
        run, ANNOTATIONS, columns, _with_hashes, doubled, config.seed, errors=True
    ):
        for row in rows:
            uris.setdefault(row["image_id"], []).append(row["uri"])
    examples = "; ".join(f"{name}: {', '.join(sorted(u))}" for name, u in sorted(uris.items())[:5])
    raise DatasetError(
        f"{config.root}: {len(uris)} image_id(s) occur more than once: {examples}. "
        "An image_id must be unique: rename the files or mend the table"
    )


def _with_hashes(rows: pa.Table, hashes: set[int], seed: int) -> list[dict[str, Any]]:
    """Return the rows, of those not left out, whose ids have such hashes."""
    rows = rows.filter(pc.is_null(rows["left_out"])).to_pylist()
    return [row for row in rows if key(row["image_id"], seed) in hashes]


# --------------------------------------------------------------------------- reading them again


def read_selected(run: RunDir, spans: Sequence[Span], selection: Selection) -> pa.Table:
    """Return the annotations of spans of rows that take part: rows of ``tables.ANNOTATION``."""
    return selection.of(pa.concat_tables([_read_span(run, *span) for span in spans]))


def _read_span(run: RunDir, unit: str, start: int, stop: int) -> pa.Table:
    """Return rows of a file; no more groups of rows are read than they need."""
    size = ROWS_PER_GROUP
    with run.filesystem.open(run.file(ANNOTATIONS, unit), "rb") as file:
        groups = range(start // size, -(-stop // size))
        rows = pq.ParquetFile(file).read_row_groups(list(groups))
    return rows.slice(start - groups.start * size, stop - start)
