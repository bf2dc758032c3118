"""The one chain from a unit to its file: rows, images, batches, a worker, a table.

A unit's rows are listed and their images fetched, checked and decoded in a task; an actor that
holds a worker on a device takes them in batches and writes the file, while the device goes on with
the next unit, whose pixels have come meanwhile. Rows travel with the pixels.
A unit whose decoding kills its process again and again is decoded image by image in child
processes, so that the image that does it is a row with its reason.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.exceptions import OutOfMemoryError, WorkerCrashedError

from sensloc.engine import cluster, units
from sensloc.engine.batches import Images, Worker
from sensloc.engine.pool import CALLS, EVERY, Pool
from sensloc.images.fetch import ImageError
from sensloc.store.images import images_of
from sensloc.store.passes import batch_size_of
from sensloc.store.run import RunDir

log = logging.getLogger(__name__)

DECODE = "decode"
"""A column by which a rows function marks the rows whose image is needed; without it, all are."""

FILE = "file"
"""The column of the bytes of a row's image file, where a chain keeps them for its worker."""

CRASHES = (WorkerCrashedError, OutOfMemoryError)
"""What Ray raises when a task's process has died ``cluster.RETRIES`` times."""

Rows = Callable[[RunDir, Any], pa.Table]
"""From a run and what is known of a unit to its rows: ``image_id``, ``uri``, ``error``, ``content``
where it is known, and whatever else the worker reads. It can be pickled."""


@dataclass(frozen=True)
class Chain:
    """What the units of a stage are made of.

    Attributes:
        run: The run directory.
        stage: Folder of the run directory.
        rows: Gives a unit's rows.
        worker: Makes the worker, given the name of a torch device. It gets a network's batch at a
            time, at most.
        size: S, the side of the squashed images in pixels; None: that of the network's input.
        keep: Whether the images' files travel with the rows too, as the column ``FILE``: for a
            worker that looks again at a part, at its full resolution. A file is smaller than its
            pixels, and is fetched and checked once.
    """

    run: RunDir
    stage: str
    rows: Rows
    worker: Callable[[str], Worker]
    size: int | None = None
    keep: bool = False

    def images(self, what: Any, isolated: bool) -> Images:
        """Return a unit's rows with their images.

        Width and height are filled in where the rows do not know them.

        Args:
            what: What the rows function is told of the unit.
            isolated: Whether each image is decoded in a child process.
        """
        rows, size = self.rows(self.run, what), self.size or self.run.config.classifier.input_size
        errors = rows["error"].to_pylist()
        needed = pc.is_null(rows["error"])
        if DECODE in rows.column_names:
            needed = pc.and_(needed, rows[DECODE])
        wanted = np.flatnonzero(np.asarray(needed))
        images = images_of(
            rows.take(pa.array(wanted)), size, self.run.config, isolated, keep=self.keep
        )
        pixels = np.zeros((len(wanted), size, size, 3), np.uint8)
        at: list[int] = []
        sizes: dict[int, tuple[int, int]] = {}
        files: dict[int, bytes | None] = {}
        for i, image in zip(wanted.tolist(), images, strict=True):
            if isinstance(image, ImageError):
                errors[i] = str(image)
            else:
                pixels[len(at)] = image.pixels
                sizes[i], files[i] = (image.width, image.height), image.data
                at.append(i)
        rows = _with(rows, "error", errors)
        if self.keep:
            kept = pa.array([files.get(i) for i in range(len(rows))], pa.large_binary())
            rows = rows.append_column(FILE, kept)
        for side, name in enumerate(("width", "height")):
            if name in rows.column_names and rows[name].null_count:
                known = rows[name].to_pylist()
                filled = [sizes[i][side] if i in sizes else v for i, v in enumerate(known)]
                rows = _with(rows, name, filled)
        return Images(rows, np.array(at, np.int64), pixels[: len(at)])

    @cached_property
    def batch_size(self) -> int:
        """Images of a batch; read once by the process that makes tables, not for each of them."""
        return batch_size_of(self.run)

    def table(self, worker: Worker, images: Images) -> pa.Table:
        """Return what a unit's file holds."""
        return images.through(worker, self.batch_size)

    def write(self, unit: str, table: pa.Table) -> units.Written:
        """Write a unit's file."""
        return units.write(self.run, self.stage, unit, table)


def _with(rows: pa.Table, name: str, values: list[Any]) -> pa.Table:
    where = rows.schema.get_field_index(name)
    field = rows.schema.field(name)
    return rows.set_column(where, field, pa.array(values, field.type))


# --------------------------------------------------------------------------- on the cluster


def write_units(chain: Chain, units_: Mapping[str, Any], held: bool = True) -> list[str]:
    """Write ``<stage>/<unit>.parquet`` for every unit that has none yet.

    Args:
        chain: What the units are made of.
        units_: By the name of each unit, what the rows function is told of it.
        held: Whether workers are held by actors, as ``[resources]`` says: those that have a
            network. Others are quickly made, and work in the task that decodes.

    Returns:
        The units that were missing.
    """
    run, stage, resources = chain.run, chain.stage, chain.run.config.resources
    todo = units.missing(run, stage, units_)
    if not todo:
        return todo
    pool = None
    if held:
        pool = Pool(
            partial(_Writer, chain),
            min(resources.actors, len(todo)),
            resources.cpus_per_actor,
            resources.gpus_per_actor,
            spare=resources.spare,
            calls=CALLS,
        )
    try:
        units.report(_flow(chain, units_, todo, pool), run, stage, len(todo))
    finally:
        if pool:
            pool.close()
    return todo


def _flow(
    chain: Chain, units_: Mapping[str, Any], todo: list[str], pool: Pool | None
) -> Iterator[units.Written]:
    """Decode units in tasks, no more than there is room for, and hand them to the actors."""
    shared, isolated = ray.put(chain), False
    cpus = chain.run.config.resources.cpus_per_task if pool else 1.0
    task = cluster.remote(_decode if pool else _make, cpus, num_returns=2)
    queue, ready = deque(todo), deque[tuple[str, Any]]()
    decoding: dict[Any, tuple[str, bool, Any]] = {}
    while queue or decoding or ready or (pool and pool.pending):
        if pool:
            pool.resize(len(queue) + len(decoding) + len(ready))
        while queue and len(decoding) + len(ready) < _at_once(cpus, pool):
            unit = queue.popleft()
            status, images = task.remote(shared, unit, units_[unit], isolated)
            decoding[status] = (unit, isolated, images)
        while pool and ready and pool.free:
            pool.submit(*ready.popleft())
        done, _ = ray.wait([*decoding, *(pool.pending if pool else ())], timeout=EVERY)
        for reference in done:
            if reference not in decoding:
                yield pool.take(reference)  # type: ignore[union-attr]
                continue
            unit, alone, images = decoding.pop(reference)
            try:
                written = cluster.result(reference)
            except CRASHES as error:
                if alone:
                    raise
                log.warning("workers died again and again (%s): decoding image by image", error)
                isolated = True
                queue.appendleft(unit)
                continue
            if pool:
                ready.append((unit, images))
            else:
                yield written


def _at_once(cpus: float, pool: Pool | None) -> int:
    """Return how many units may wait in memory or be decoded, beside those that actors have."""
    if pool is None:
        return 2 * cluster.room(cpus)
    actors = len(pool.working)
    return actors + 1 + cluster.room(cpus, spare=actors * pool.cpus)


def _decode(chain: Chain, unit: str, what: Any, isolated: bool) -> tuple[None, Images]:
    return None, chain.images(what, isolated)


def _make(chain: Chain, unit: str, what: Any, isolated: bool) -> tuple[units.Written, None]:
    table = chain.table(chain.worker("cpu"), chain.images(what, isolated))
    return chain.write(unit, table), None


class _Writer:
    """The worker of an actor: it makes one unit's table at a time, and writes it beside the next.

    A call ends when its unit's file is there, so that an error of writing is that of its unit, and
    an actor that dies costs the units of its calls.
    """

    def __init__(self, chain: Chain) -> None:
        self.chain, self.worker = chain, chain.worker(chain.run.config.resources.device)
        self.turn = threading.Lock()

    def __call__(self, unit: str, images: Images) -> units.Written:
        with self.turn:
            table = self.chain.table(self.worker, images)
        return self.chain.write(unit, table)
