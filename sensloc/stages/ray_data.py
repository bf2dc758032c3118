"""What every stage shares: the connection, reading a table, and folding over its files."""

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import ray
import ray.data
from ray.data import DataContext, Dataset

from sensloc.run import RunDir

FILES_PER_TASK = 16
TASKS_IN_FLIGHT = 64
"""Results that wait for the driver are at most this many: its memory is bounded."""

T = TypeVar("T")


def connect(**options: Any) -> None:
    """Join the cluster that this process belongs to, or start one on this machine.

    Args:
        options: of ``ray.init``.
    """
    # a Ray started here keeps idle workers, which have imported torch, for a minute, not a second
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")
    ray.init(ignore_reinit_error=True, logging_level=logging.WARNING, **options)
    for chatter in ("dataset", "_internal.execution.streaming_executor", "_internal.datasource"):
        logging.getLogger(f"ray.data.{chatter}").setLevel(logging.WARNING)
    for raised_anyway in ("exceptions", "_internal.execution.streaming_executor_state"):
        logging.getLogger(f"ray.data.{raised_anyway}").setLevel(logging.CRITICAL)
    context = DataContext.get_current()
    context.use_datasource_v2 = False  # it starts 32 actors to read any number of files
    context.enable_operator_progress_bars = False  # one line of progress, not one per operator
    context.issue_detectors_config.high_memory_detector_config.detection_time_interval_s = -1


def room(cpus: float, gpus: float = 0.0, spare: float = 0.0) -> int:
    """How many actors the cluster has room for now, beside ``spare`` CPUs; 1 at least."""
    have = ray.cluster_resources()  # type: ignore[no-untyped-call]
    fits = (have.get("CPU", 0) - spare) / cpus
    if gpus:
        fits = min(fits, have.get("GPU", 0) / gpus)
    return max(1, int(fits))


def read(run: RunDir, stage: str) -> Dataset:
    """The table of a stage, lazily: a block per file."""
    files = run.files(stage)
    return ray.data.read_parquet(
        files,
        filesystem=run.arrow,
        override_num_blocks=len(files),
        num_cpus=run.config.resources.cpus_per_task,
    )


def write(rows: Dataset, run: RunDir, stage: str) -> None:
    """Run the chain, each of its blocks into a Parquet file of the stage."""
    rows.write_parquet(
        run.path(stage),
        filesystem=run.arrow,
        compression="zstd",
        ray_remote_args={"num_cpus": run.config.resources.cpus_per_task},
    )


def batches(rows: Dataset) -> Iterator[pa.Table]:
    """Bring a dataset to the driver, block by block."""
    return rows.iter_batches(batch_format="pyarrow", batch_size=None)  # type: ignore[return-value]


def stamp(run: RunDir) -> dict[str, str]:
    """The metadata of every table's schema."""
    return {"sensloc.config_hash": run.config.fingerprint, "sensloc.run": run.config.name}


def load(
    run: RunDir,
    files: list[str],
    columns: list[str] | None,
    split: str | None = None,
    errors: bool = False,
    where: pc.Expression | None = None,
) -> pa.Table:
    """Some files of a stage, in memory.

    Args:
        run: where they are.
        files: as ``RunDir.files`` gives them.
        columns: to read; None: all.
        split: keep this set only; None keeps all.
        errors: keep the rows that have one.
        where: keep the rows for which this holds.
    """
    wanted = pc.scalar(True) if where is None else where
    if split is not None:
        wanted &= pc.field("split") == split
    if not errors:
        wanted &= pc.field("error").is_null()
    return pads.dataset(files, filesystem=run.arrow).to_table(columns=columns, filter=wanted)


def over_files(
    run: RunDir,
    stage: str,
    columns: list[str],
    function: Callable[..., T],
    *args: Any,
    split: str | None = None,
    errors: bool = False,
) -> Iterator[T]:
    """Map ``function(rows, *args)`` over groups of a stage's files, in Ray tasks.

    Yields:
        The results in the order in which they come: what is done with them must not depend on it.
    """
    files = run.files(stage)
    groups = [files[i : i + FILES_PER_TASK] for i in range(0, len(files), FILES_PER_TASK)]
    shared = ray.put((function, args))
    task = _apply.options(num_cpus=run.config.resources.cpus_per_task)
    pending: list[Any] = []
    for group in groups:
        if len(pending) == TASKS_IN_FLIGHT:
            (done,), pending = ray.wait(pending)
            yield ray.get(done)
        pending.append(task.remote(shared, run, group, columns, split, errors))
    while pending:
        (done,), pending = ray.wait(pending)
        yield ray.get(done)


@ray.remote
def _apply(
    shared: Any, run: RunDir, files: list[str], columns: list[str], split: str | None, errors: bool
) -> Any:
    function, args = shared
    return function(load(run, files, columns, split, errors), *args)
