"""Work that is cut into units, each a Parquet file: what is written is never done again.

A unit's file is a pure function of the run, appears whole or not at all, and has one name,
whoever makes it. So a killed worker, node or driver costs the units at work and nothing else, and
a unit that two workers made is there once.
"""

import io
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from ray.data import ActorPoolStrategy, Dataset
from ray.exceptions import OutOfMemoryError, WorkerCrashedError
from tqdm import tqdm

from sensloc.engine import cluster, metrics
from sensloc.store.run import RunDir

log = logging.getLogger(__name__)

Worker = Callable[[str], pa.Table]
"""From a unit's name to its rows."""

CRASHES = (WorkerCrashedError, OutOfMemoryError)
"""What Ray raises when a task's process has died ``cluster.RETRIES`` times."""

ROWS_PER_GROUP = 1024
"""Of a unit's file, so that a few rows of a long one cost little."""

EVERY = 30.0
"""Seconds between two lines of the log."""

MOST_TASKS = 1000
"""Units that take no time share a task where there are more of them."""


def names(run: RunDir, stage: str) -> list[str]:
    """The units of a stage that are there, sorted."""
    return [PurePosixPath(file).stem for file in run.files(stage)]


def missing(run: RunDir, stage: str, units: Sequence[str]) -> list[str]:
    """The units that are to do; files that are not whole tables of this config are deleted."""
    there = dict(zip(names(run, stage), run.files(stage), strict=True))
    with ThreadPoolExecutor(16) as pool:
        good = dict(zip(there, pool.map(partial(_is_whole, run), there.values()), strict=True))
    for unit in [unit for unit, fine in good.items() if not fine or unit not in set(units)]:
        log.warning("%s: not a whole table of this run: deleted", there[unit])
        run.filesystem.rm_file(there.pop(unit))
    todo = [unit for unit in units if unit not in there]
    if there and todo:
        log.info("%s: %d of %d units to do", stage, len(todo), len(units))
    return todo


def _is_whole(run: RunDir, file: str) -> bool:
    try:
        with run.filesystem.open(file, "rb") as opened:
            found = pq.read_schema(opened).metadata or {}
    except (pa.ArrowInvalid, OSError):
        return False
    return found.get(b"sensloc.config_hash") == run.config.fingerprint.encode()


def dataset(units: Sequence[str]) -> Dataset:
    """A row and a block per unit: {"unit": its name}."""
    rows = [{"unit": unit} for unit in units]
    return ray.data.from_items(rows, override_num_blocks=len(rows))


def each(
    run: RunDir,
    stage: str,
    units: Sequence[str],
    make: Callable[..., Worker],
    *args: Any,
    cpus: float = 1.0,
    gpus: float = 0.0,
    actors: int | None = None,
) -> None:
    """Write ``<stage>/<unit>.parquet`` for every unit that has none yet, in an actor pool.

    Args:
        run: where to.
        stage: folder of the run directory.
        units: names, good as file names.
        make: ``make(run, *args)``, called once in each actor, gives the worker.
        args: for ``make``.
        cpus: of an actor.
        gpus: of an actor.
        actors: at most so many; None: as many as there is room for.
    """
    todo = missing(run, stage, units)
    if not todo:
        return
    made = dataset(todo).map(
        _Unit,  # type: ignore[arg-type]
        fn_constructor_args=(run, stage, make, [ray.put(args)]),  # a list: not copied
        **pool(min(actors or len(todo), len(todo)), cpus, gpus),
    )
    finish(made, run, stage, len(todo))


def each_quick(
    run: RunDir,
    stage: str,
    units: Mapping[str, Any],
    function: Callable[..., pa.Table],
    *args: Any,
) -> None:
    """The same by ``function(run, what, *args)`` in tasks, for what takes little time.

    Args:
        run: where to.
        stage: folder of the run directory.
        units: by name, what each is: plain values, for JSON.
        function: from a unit to its rows.
        args: for ``function``.
    """
    todo = missing(run, stage, list(units))
    if not todo:
        return
    rows = [{"unit": unit, "what": json.dumps(units[unit])} for unit in todo]
    work = partial(_quick, run=run, stage=stage, function=function, args=[ray.put(args)])
    made = ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_TASKS)).map(
        work, num_cpus=run.config.resources.cpus_per_task, ray_remote_args_fn=cluster.for_tasks
    )
    finish(made, run, stage, len(todo))


def despite_crashes(
    run: RunDir, stage: str, units: Sequence[str], make: Callable[[list[str], bool], None]
) -> list[str]:
    """Make what is missing of a stage that decodes images; one that kills its decoder is an error.

    Args:
        run: where to.
        stage: folder of the run directory.
        units: all of the stage.
        make: ``make(todo, isolated)`` makes units, each image in a child process if so wanted.

    Returns:
        The units that were missing.
    """
    todo = missing(run, stage, units)
    try:
        if todo:
            make(todo, False)
    except CRASHES as error:
        log.warning("workers died again and again (%s): decoding image by image", error)
        if left := missing(run, stage, units):
            make(left, True)
    return todo


def pool(most: int, cpus: float, gpus: float, spare: float = 0.0) -> dict[str, Any]:
    """Arguments of ``Dataset.map`` for actors: those that there is room for now, more later.

    Args:
        most: actors.
        cpus: of one.
        gpus: of one.
        spare: CPUs for others.
    """
    at_once = min(cluster.room(cpus, gpus, spare), most)  # autoscaling may add more
    return {
        "compute": ActorPoolStrategy(min_size=1, max_size=most, initial_size=at_once),
        "num_cpus": cpus,
        "num_gpus": gpus,
        "ray_remote_args_fn": cluster.for_actors,
    }


def finish(made: Dataset, run: RunDir, stage: str, total: int) -> None:
    """Run a chain to its end, and say how far it is: a bar on a terminal, else lines of the log.

    Args:
        made: rows of ``write``, one per unit.
        run: of the units.
        stage: of the units.
        total: of the units to make.
    """
    on_terminal, tags = sys.stderr.isatty(), metrics.tags(run, stage)
    began = said = time.monotonic()
    rows = errors = 0
    metrics.LEFT.set(total, tags)
    with tqdm(total=total, desc=stage, unit="unit", disable=not on_terminal, leave=False) as bar:
        for done, row in enumerate(made.iter_rows(), 1):
            rows, errors = rows + row["rows"], errors + row["errors"]
            now = time.monotonic()
            rate = rows / max(now - began, 1e-9)
            metrics.LEFT.set(total - done, tags)
            bar.set_postfix_str(f"{rate:,.1f} rows/s, {errors:,} errors", refresh=False)
            bar.update()
            if not on_terminal and now - said > EVERY and done < total:
                said = now
                left = timedelta(seconds=round((now - began) / done * (total - done)))
                log.info(
                    "%s: %d of %d units, %.1f rows/s, %d errors, about %s left",
                    *(stage, done, total, rate, errors, left),
                )


def write(run: RunDir, stage: str, unit: str, table: pa.Table) -> dict[str, Any]:
    """Write a unit's file, and say so in a row and in the metrics."""
    run.write(f"{stage}/{unit}.parquet", parquet(table, cluster.stamp(run)))
    errors = cluster.errors_of(table) if "error" in table.column_names else 0
    metrics.count(run, stage, len(table), errors)
    return {"unit": unit, "rows": len(table), "errors": errors}


def parquet(table: pa.Table, stamp: dict[str, str]) -> bytes:
    """A table as the bytes of a Parquet file."""
    buffer = io.BytesIO()
    stamped = table.replace_schema_metadata(stamp)
    pq.write_table(stamped, buffer, compression="zstd", row_group_size=ROWS_PER_GROUP)
    return buffer.getvalue()


class _Unit:
    """An actor: one worker, its results to files."""

    def __init__(
        self, run: RunDir, stage: str, make: Callable[..., Worker], args: list[Any]
    ) -> None:
        self.run, self.stage = run, stage
        self.work = make(run, *ray.get(args[0]))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return write(self.run, self.stage, row["unit"], self.work(row["unit"]))


def _quick(
    row: dict[str, Any],
    run: RunDir,
    stage: str,
    function: Callable[..., pa.Table],
    args: list[Any],
) -> dict[str, Any]:
    table = function(run, json.loads(row["what"]), *ray.get(args[0]))
    return write(run, stage, row["unit"], table)
