"""The connection to a Ray cluster, and functions that run in its tasks."""

import logging
import os
import secrets
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import ray
from ray._private import ray_constants, services
from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError, RaySystemError, RayTaskError
from threadpoolctl import threadpool_limits

from sensloc.engine import idle
from sensloc.store.files import image_keys, load
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

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""For the networks and the linear algebra of workers: with more threads they sum in another order,
to other bits, and more processes are as fast. Ray would give a task as many as it has CPUs."""

STARTED_HERE: set[str] = set()
"""The address of a Ray that this process has started: no machines come to that."""

T = TypeVar("T")


@contextmanager
def connected() -> Iterator[None]:
    """Join or start a cluster, see ``connect``; from then on SIGTERM is a KeyboardInterrupt.

    Raises:
        RunError: Workers or nodes died more often than work is tried again.
    """
    connect()
    # as Ctrl-C: the handler that ray.init leaves behind aborts the process
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except RayTaskError:
        raise  # a known error or a defect of what was called, not of the cluster
    except RayError as error:
        reason = str(error).strip().partition("\n")[0]
        raise RunError(
            f"the cluster fails ({type(error).__name__}): {reason}\n"
            "What is written stays: run the same command again to go on"
        ) from error


def connect(**options: Any) -> None:
    """Join the cluster that this process belongs to, or start one on this machine.

    From then on linear algebra has one thread, here as there, so that equal sums give equal bits.

    Args:
        options: Arguments of ``ray.init``.
    """
    if not ray.is_initialized():
        idle.forget()
    address: Any = options.get("address")
    alone = services.canonicalize_bootstrap_address(address) is None  # as ray.init looks for one
    if alone:
        _stay_private()
    # a Ray started here keeps idle workers, which have imported torch, for a minute, not a second
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")
    unset = {name: value for name, value in KEEP_FREED_MEMORY.items() if name not in os.environ}
    quiet: Any = {"ignore_reinit_error": True, "logging_level": logging.WARNING}
    if alone:
        # Ray's processes inherit it, those among them that it starts before there is work; a
        # runtime environment would have to be made, and each worker started anew for it
        with _in_environment(unset | ONE_THREAD):
            ray.init(**{"include_dashboard": False} | quiet | options)
        STARTED_HERE.add(ray.get_runtime_context().gcs_address)
    else:
        ray.init(runtime_env={"env_vars": unset | ONE_THREAD}, **quiet, **options)
    threadpool_limits(1, "blas")


@contextmanager
def _in_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Give what this process starts some environment variables, and then take them back."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]


def _stay_private() -> None:
    """Have a Ray that starts here listen on loopback alone, and take orders by token alone."""
    ray_constants.ENABLE_RAY_CLUSTER = False  # as on macOS; there is no other switch
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"  # for the processes it starts
    # or it is written under HOME. RAY_AUTH_MODE=disabled would turn it off; unset is "token"
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)


def room(cpus: float, gpus: float = 0.0, spare: float = 0.0) -> int:
    """Return how many actors the cluster has room for now, beside ``spare`` CPUs; 1 at least."""
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    fits = (resources.get("CPU", 0) - spare) / cpus
    if gpus:
        fits = min(fits, resources.get("GPU", 0) / gpus)
    return max(1, int(fits))


def ask_for(bundles: list[dict[str, float]]) -> None:
    """Ask an autoscaler for a cluster that holds these resources at once; none withdraws it."""
    if elastic():
        request_resources(bundles=bundles)


def elastic() -> bool:
    """Return whether machines may come and go: not where this process has started Ray itself."""
    return ray.get_runtime_context().gcs_address not in STARTED_HERE


# --------------------------------------------------------------------------- tasks


def remote(function: Callable[..., Any], cpus: float, gpus: float = 0.0, **options: Any) -> Any:
    """Return a function as a Ray task, tried again up to ``RETRIES`` times when its worker dies."""
    idle.make_room_for(cpus, gpus)
    task: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, scheduling_strategy="SPREAD")(function)
    return task.options(max_retries=RETRIES, retry_exceptions=[RaySystemError], **options)


def result(reference: Any) -> Any:
    """Return what a task or an actor's method returned, or raise what it raised."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise getattr(error, "cause", None) or error from error


def in_task(function: Callable[..., T], *args: Any, cpus: float = 1.0, gpus: float = 0.0) -> T:
    """Return ``function(*args)``, called in a task of its own."""
    value: T = result(remote(function, cpus, gpus).remote(*args))
    return value


def in_tasks(
    function: Callable[..., T],
    items: Sequence[Any],
    *args: Any,
    cpus: float,
    at_once: int = TASKS_IN_FLIGHT,
) -> Iterator[tuple[int, T]]:
    """Call ``function(item, *args)`` for each item in a task of its own.

    Args:
        function: What is called.
        items: Plain values, each sent to its own task.
        args: Values that are sent to the cluster once.
        cpus: Of a task.
        at_once: Tasks that run, wait for a CPU or for the driver at the same time.

    Yields:
        An item's index and the result, in the order in which they come.
    """
    shared = ray.put((function, args))
    task = remote(_call, cpus)
    pending: dict[Any, int] = {}
    for index, item in enumerate(items):
        if len(pending) == at_once:
            yield _next(pending)
        pending[task.remote(shared, item)] = index
    while pending:
        yield _next(pending)


def _call(shared: tuple[Callable[..., Any], tuple[Any, ...]], item: Any) -> Any:
    function, args = shared
    return function(item, *args)


def _next(pending: dict[Any, int]) -> tuple[int, Any]:
    (done,), _ = ray.wait(list(pending))
    return pending.pop(done), result(done)


# --------------------------------------------------------------------------- a stage's files


def over_files(
    run: RunDir,
    stage: str,
    columns: Sequence[str],
    function: Callable[..., T],
    *args: Any,
    split: str | None = None,
    errors: bool = False,
) -> Iterator[T]:
    """Map ``function(rows, *args)`` over groups of a stage's files, in Ray tasks.

    Args:
        run: The run directory.
        stage: Folder of the run directory.
        columns: The columns to read.
        function: From the rows of a group of files to a value.
        args: Further arguments of the function, sent to the cluster once.
        split: The only set to keep; None keeps all.
        errors: Whether rows with an error are kept.

    Yields:
        The results in the order in which they come: what is done with them must not depend on it.
    """

    def apply(group: list[str], args: tuple[Any, ...]) -> T:
        return function(load(run, group, columns, split, errors), *args)

    cpus = run.config.resources.cpus_per_task
    for _, value in in_tasks(apply, _groups(run.files(stage)), args, cpus=cpus):
        yield value


def by_file(
    run: RunDir, stage: str, columns: Sequence[str], function: Callable[..., T], *args: Any
) -> dict[str, T]:
    """Return ``function(rows, *args)`` of each of a stage's files, all their rows in order.

    Returns:
        The results by file, in the order of the files.
    """

    def apply(group: list[str], args: tuple[Any, ...]) -> list[T]:
        return [function(load(run, [file], columns, errors=True), *args) for file in group]

    groups, cpus = _groups(run.files(stage)), run.config.resources.cpus_per_task
    values = dict(in_tasks(apply, groups, args, cpus=cpus))
    return {
        file: value
        for index, group in enumerate(groups)
        for file, value in zip(group, values[index], strict=True)
    }


def _groups(files: list[str]) -> list[list[str]]:
    return [files[i : i + FILES_PER_TASK] for i in range(0, len(files), FILES_PER_TASK)]


def same_rows(run: RunDir, stage: str, other: str) -> bool:
    """Return whether two stages hold the same image ids, each exactly once."""
    first, second = (
        np.sort(np.concatenate([*over_files(run, name, ["image_id"], image_keys, errors=True)]))
        for name in (stage, other)
    )
    return bool((first[1:] != first[:-1]).all()) and np.array_equal(first, second)
