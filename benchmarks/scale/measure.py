"""A job in a process of its own, and the memory and time of all processes that it starts."""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.compute as pc

ROOT = Path(__file__).parents[2]
"""The checkout."""

INTERVAL = 0.5
"""Seconds between two looks."""

SAMPLES = pa.schema(
    [
        ("second", pa.float64()),  # since the job began
        ("pid", pa.int64()),
        ("kind", pa.string()),  # driver, worker, raylet, gcs_server, other
        ("title", pa.string()),  # a worker's current task
        ("own", pa.int64()),  # bytes that would be given back
        ("resident", pa.int64()),  # bytes, shared ones too
        ("cpu", pa.float64()),  # seconds of a CPU taken so far
        ("store", pa.int64()),  # raylet: bytes of the object store that were ever touched
        ("spilled", pa.int64()),  # raylet: bytes of spilled objects on the disk
    ]
)
"""The table of samples: one row per process and look."""


@dataclass(frozen=True)
class Job:
    """The measurements of a job.

    Attributes:
        code: its exit code.
        seconds: from its start to its end.
        samples: table of ``SAMPLES``.
    """

    code: int
    seconds: float
    samples: pa.Table


def run_job(command: Sequence[str], log: Path) -> Job:
    """Run a command on a Ray of its own, and watch it.

    Args:
        command: its words; its workers import from this checkout.
        log: file for its output.
    """
    environment = {**os.environ, "RAY_ADDRESS": "local"}  # a cluster's processes are not its own
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
    )
    began = time.monotonic()
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=out, env=environment) as process,
        sampled(process.pid) as rows,
    ):
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            raise
    return Job(code, time.monotonic() - began, pa.Table.from_pylist(rows, SAMPLES))


def together(samples: pa.Table) -> int:
    """Return the most bytes that all of a job's processes would give back, at one look."""
    by_look = samples.group_by("second").aggregate([("own", "sum")])
    return int(pc.max(by_look["own_sum"]).as_py())


@contextlib.contextmanager
def sampled(pid: int, interval: float = INTERVAL) -> Iterator[list[dict[str, Any]]]:
    """Look at a process and its descendants, from a thread, until the block ends.

    Args:
        pid: of the process.
        interval: seconds between two looks.

    Yields:
        The rows of ``SAMPLES``, which become more.
    """
    rows: list[dict[str, Any]] = []
    began, done = time.monotonic(), threading.Event()

    def watch() -> None:
        while True:
            rows.extend(look(pid, time.monotonic() - began))
            if done.wait(interval):
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield rows
    finally:
        done.set()
        thread.join()


def look(pid: int, second: float) -> list[dict[str, Any]]:
    """Return a row of ``SAMPLES`` for a process and each descendant that is alive."""
    rows = []
    with contextlib.suppress(psutil.NoSuchProcess):  # the first has ended
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess), process.oneshot():
                kind = "driver" if process == root else kind_of(process.cmdline())
                memory, times = process.memory_info(), process.cpu_times()
                row = {
                    "second": second,
                    "pid": process.pid,
                    "kind": kind,
                    "title": process.cmdline()[0] if kind == "worker" else None,
                    "own": memory.rss - memory.shared,
                    "resident": memory.rss,
                    "cpu": times.user + times.system,
                }
                rows.append(row | (_object_store(process) if kind == "raylet" else {}))
    return rows


def kind_of(command: Sequence[str]) -> str:
    """Return what a process with these arguments is: worker, raylet, gcs_server or other."""
    program = command[0].rpartition("/")[2] if command else ""
    if program in ("raylet", "gcs_server"):
        return program
    # a worker has no title yet while it starts
    starts = any(word.endswith("/default_worker.py") for word in command)
    return "worker" if starts or program.startswith("ray::") else "other"


def _object_store(raylet: psutil.Process) -> dict[str, int]:
    """Return the bytes of a raylet's object store: pages in memory, and spilled files."""
    options = dict(word.split("=", 1) for word in raylet.cmdline() if "=" in word)
    session, memory = Path(options["--session_dir"]), options["--plasma_directory"]
    touched = 0
    with contextlib.suppress(OSError):  # it has ended
        for link in os.scandir(f"/proc/{raylet.pid}/fd"):  # psutil leaves deleted files out
            if os.readlink(link.path).startswith(f"{memory}/plasma"):
                touched += 512 * os.stat(link.path).st_blocks
    return {"store": touched, "spilled": sum(map(_size, session.glob("ray_spilled_objects_*/*")))}


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # deleted since it was listed
        return 0
