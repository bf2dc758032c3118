"""Work that is cut into units, each a Parquet file: what is written is never done again.

A unit's file is a pure function of the run, appears whole or not at all, and has one name,
whoever makes it. So a killed worker, node or driver costs the units at work and nothing else, and
a unit that two workers made is there once.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from sensloc.engine import cluster, metrics
from sensloc.store.files import errors_of, parquet, stamp
from sensloc.store.run import RunDir

log = logging.getLogger(__name__)

Written = dict[str, int]
"""How many ``rows`` a unit's file has, and how many of them have ``errors``."""

EVERY = 30.0
"""Seconds between two lines of the log."""

MOST_TASKS = 1000
"""Units that take no time share a task where there are more of them."""


def names(run: RunDir, stage: str) -> list[str]:
    """Return the units of a stage that are there, sorted."""
    return [PurePosixPath(file).stem for file in run.files(stage)]


def missing(run: RunDir, stage: str, units: Iterable[str]) -> list[str]:
    """Return the units that are to do; delete files that are not whole tables of this config."""
    wanted = dict.fromkeys(units)  # in their order, and found at once among many
    there = dict(zip(names(run, stage), run.files(stage), strict=True))
    with ThreadPoolExecutor(16) as pool:
        whole = dict(zip(there, pool.map(partial(_is_whole, run), there.values()), strict=True))
    for unit in [unit for unit, good in whole.items() if not good or unit not in wanted]:
        log.warning("%s: not a whole table of this run: deleted", there[unit])
        run.filesystem.rm_file(there.pop(unit))
    todo = [unit for unit in wanted if unit not in there]
    if there and todo:
        log.info("%s: %d of %d units to do", stage, len(todo), len(wanted))
    return todo


def _is_whole(run: RunDir, file: str) -> bool:
    try:
        with run.filesystem.open(file, "rb") as opened:
            metadata = pq.read_schema(opened).metadata or {}
    except (pa.ArrowInvalid, OSError):
        return False
    return metadata.get(b"sensloc.config_hash") == run.config.fingerprint.encode()


def each(
    run: RunDir,
    stage: str,
    units: Mapping[str, Any],
    function: Callable[..., pa.Table],
    *args: Any,
    cpus: float | None = None,
) -> None:
    """Write the units that are missing, in tasks.

    Args:
        run: The run directory.
        stage: Folder of the run directory.
        units: By name, what the function is told of each.
        function: ``function(run, what, *args)`` gives a unit's rows.
        args: Further arguments of the function, sent to the cluster once.
        cpus: Of a task; None for ``resources.cpus_per_task``.
    """
    todo = missing(run, stage, units)
    groups = [
        [(unit, units[unit]) for unit in todo[i::MOST_TASKS]]
        for i in range(min(MOST_TASKS, len(todo)))
    ]

    def apply(group: list[tuple[str, Any]], args: tuple[Any, ...]) -> list[Written]:
        return [write(run, stage, unit, function(run, what, *args)) for unit, what in group]

    if todo:
        cpus = cpus or run.config.resources.cpus_per_task
        done = cluster.in_tasks(apply, groups, args, cpus=cpus, at_once=MOST_TASKS)
        report((written for _, group in done for written in group), run, stage, len(todo))


def write(run: RunDir, stage: str, unit: str, table: pa.Table) -> Written:
    """Write a unit's file, and count its rows, in the metrics too."""
    run.write(f"{stage}/{unit}.parquet", parquet(table, stamp(run)))
    errors = errors_of(table) if "error" in table.column_names else 0
    metrics.count(run, stage, len(table), errors)
    return {"rows": len(table), "errors": errors}


def report(made: Iterable[Written], run: RunDir, stage: str, total: int) -> None:
    """Take what is written as it comes, and say how far the stage is: a bar on a terminal, else
    lines of the log.

    Args:
        made: What ``write`` returned, for one unit after another.
        run: The run directory.
        stage: Folder of the run directory.
        total: Units that are made.
    """
    on_terminal, tags = sys.stderr.isatty(), metrics.tags(run, stage)
    began = logged = time.monotonic()
    rows = errors = 0
    metrics.LEFT.set(total, tags)
    with tqdm(total=total, desc=stage, unit="unit", disable=not on_terminal, leave=False) as bar:
        for done, written in enumerate(made, 1):
            rows, errors = rows + written["rows"], errors + written["errors"]
            now = time.monotonic()
            rate = rows / max(now - began, 1e-9)
            metrics.LEFT.set(total - done, tags)
            bar.set_postfix_str(f"{rate:,.1f} rows/s, {errors:,} errors", refresh=False)
            bar.update()
            if not on_terminal and now - logged > EVERY and done < total:
                logged = now
                left = timedelta(seconds=round((now - began) / done * (total - done)))
                log.info(
                    "%s: %d of %d units, %.1f rows/s, %d errors, about %s left",
                    *(stage, done, total, rate, errors, left),
                )
