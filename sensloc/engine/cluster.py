"""What every stage shares: the connection, reading a table, and folding over its files."""

import logging
import os
import secrets
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import ray
import ray.data
from ray._private import ray_constants, services
from ray.data import DataContext
from ray.exceptions import RayError, RayTaskError

from sensloc.dice import keys
from sensloc.store.run import RunDir, RunError

FILES_PER_TASK = 16
TASKS_IN_FLIGHT = 64
"""Results that wait for the driver are at most this many: its memory is bounded."""

RETRIES = 10
"""How often work whose worker or node died is tried again, before the job stops."""

KEEP_FREED_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
}
"""For glibc's malloc(3). By default a large block is new from the system each time, and its pages
are zeroed as they are touched: for a batch's activations that takes as long as the network's
forward and backward pass. A process holds its peak instead, and some blocks that fit no more: 2.7
GB and not 1.9 for 32 photographs. Results do not change, and other C libraries do not look."""

T = TypeVar("T")


def for_tasks() -> dict[str, Any]:
    """``ray_remote_args_fn`` of a chain's tasks."""
    return {"max_retries": RETRIES}


def for_actors() -> dict[str, Any]:
    """``ray_remote_args_fn`` of a chain's actors."""
    return {"max_task_retries": RETRIES}


@contextmanager
def connected() -> Iterator[None]:
    """On a cluster, see ``connect``.

    Raises:
        RunError: workers or nodes died more often than work is tried again.
    """
    connect()
    try:
        yield
    except RayTaskError:
        raise  # of what was called: an error that we know, or a defect
    except RayError as error:
        reason = str(error).strip().partition("\n")[0]
        raise RunError(
            f"the cluster fails ({type(error).__name__}): {reason}\n"
            "What is written stays: run the same command again to go on"
        ) from error


def connect(**options: Any) -> None:
    """Join the cluster that this process belongs to, or start one on this machine.

    Args:
        options: of ``ray.init``.
    """
    named: Any = options.get("address")
    if services.canonicalize_bootstrap_address(named) is None:  # none is found, as ray.init looks
        _stay_private()
    # a Ray started here keeps idle workers, which have imported torch, for a minute, not a second
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")
    unset = {name: value for name, value in KEEP_FREED_MEMORY.items() if name not in os.environ}
    ray.init(
        ignore_reinit_error=True,
        logging_level=logging.WARNING,
        runtime_env={"env_vars": unset},
        **options,
    )
    # nothing else bounds how often a chain's work is tried again; Ray 2.63 is the last to have it
    warnings.filterwarnings("ignore", "`ray_remote_args_fn` is deprecated")
    for chatter in ("dataset", "_internal.execution.streaming_executor", "_internal.datasource"):
        logging.getLogger(f"ray.data.{chatter}").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # that there is none
    for raised_anyway in ("exceptions", "_internal.execution.streaming_executor_state"):
        logging.getLogger(f"ray.data.{raised_anyway}").setLevel(logging.CRITICAL)
    context = DataContext.get_current()
    context.use_datasource_v2 = False  # it starts 32 actors to read any number of files
    context.raise_original_map_exception = True  # an error of ours stays one of its kind
    context.enable_progress_bars = False  # units.finish says how far a stage is
    context.issue_detectors_config.high_memory_detector_config.detection_time_interval_s = -1


def _stay_private() -> None:
    """Have a Ray that starts here listen on loopback alone, and take orders by token alone."""
    ray_constants.ENABLE_RAY_CLUSTER = False  # as on macOS; there is no other switch
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"  # for the processes it starts
    # or it is written under HOME. RAY_AUTH_MODE=disabled would turn it off; unset is "token"
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)


def room(cpus: float, gpus: float = 0.0, spare: float = 0.0) -> int:
    """How many actors the cluster has room for now, beside ``spare`` CPUs; 1 at least."""
    have = ray.cluster_resources()  # type: ignore[no-untyped-call]
    fits = (have.get("CPU", 0) - spare) / cpus
    if gpus:
        fits = min(fits, have.get("GPU", 0) / gpus)
    return max(1, int(fits))


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

    def apply(group: list[str], function: Callable[..., T], args: tuple[Any, ...]) -> T:
        return function(load(run, group, columns, split, errors), *args)

    for _, result in _in_tasks(run, groups, apply, function, args):
        yield result


def by_file(
    run: RunDir, stage: str, columns: list[str], function: Callable[..., T], *args: Any
) -> dict[str, T]:
    """``function(rows, *args)`` of each of a stage's files, all their rows in order.

    Returns:
        The results by file, in the order of the files.
    """
    files = run.files(stage)
    groups = [files[i : i + FILES_PER_TASK] for i in range(0, len(files), FILES_PER_TASK)]

    def apply(group: list[str], function: Callable[..., T], args: tuple[Any, ...]) -> list[T]:
        return [function(load(run, [file], columns, errors=True), *args) for file in group]

    found: dict[str, T] = {}
    for group, results in _in_tasks(run, groups, apply, function, args):
        found |= zip(group, results, strict=True)
    return {file: found[file] for file in files}


def _in_tasks(
    run: RunDir, groups: list[list[str]], function: Callable[..., Any], *args: Any
) -> Iterator[tuple[list[str], Any]]:
    """``function(group, *args)`` of each group in a task of its own, as they come."""
    shared = ray.put((function, args))
    task = _call.options(num_cpus=run.config.resources.cpus_per_task)
    pending: dict[Any, list[str]] = {}
    for group in groups:
        if len(pending) == TASKS_IN_FLIGHT:
            yield _next(pending)
        pending[task.remote(shared, group)] = group
    while pending:
        yield _next(pending)


def _next(pending: dict[Any, list[str]]) -> tuple[list[str], Any]:
    (done,), _ = ray.wait(list(pending))
    return pending.pop(done), ray.get(done)


@ray.remote(max_retries=RETRIES)
def _call(shared: Any, group: list[str]) -> Any:
    function, args = shared
    return function(group, *args)


def same_rows(run: RunDir, stage: str, other: str) -> bool:
    """Do two stages hold the same image ids, each exactly once?"""
    mine, theirs = (
        np.sort(np.concatenate([*over_files(run, one, ["image_id"], image_keys, errors=True)]))
        for one in (stage, other)
    )
    return bool((mine[1:] != mine[:-1]).all()) and np.array_equal(mine, theirs)


def errors_of(rows: pa.Table) -> int:
    """How many of the rows have an error."""
    return len(rows) - int(rows["error"].null_count)


def image_keys(rows: pa.Table) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of each row's image id: [n]."""
    return keys(rows["image_id"].to_pylist(), 0)
