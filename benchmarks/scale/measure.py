"""A job in a process of its own, and what /proc says of it and of all processes that it starts."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

INTERVAL = 0.5
"""Seconds between two looks."""

TICKS = os.sysconf("SC_CLK_TCK")
"""Of the kernel's clock, per second."""

SAMPLES = pa.schema(
    [
        ("second", pa.float64()),  # since the job began
        ("pid", pa.int64()),
        ("kind", pa.string()),  # driver, worker, raylet, gcs_server, other
        ("title", pa.string()),  # of a worker: what it does
        ("anonymous", pa.int64()),  # bytes of its own (RssAnon)
        ("most", pa.int64()),  # bytes, shared ones too, at its peak so far (VmHWM)
        ("cpu", pa.float64()),  # seconds of a CPU that it has taken so far
        ("store", pa.int64()),  # raylet: bytes of the object store that were ever touched
        ("spilled", pa.int64()),  # raylet: bytes of spilled objects on the disk
    ]
)
"""One row per process and look."""


@dataclass(frozen=True)
class Process:
    """One process, as /proc shows it now.

    Attributes:
        pid: its number.
        parent: its parent's.
        command: its arguments; a Ray worker's title is the first.
        anonymous: bytes of its own: what it would give back (RssAnon).
        most: bytes that it held at its peak (VmHWM), the object store's pages included.
        cpu: seconds of a CPU that it has taken.
    """

    pid: int
    parent: int
    command: tuple[str, ...]
    anonymous: int
    most: int
    cpu: float = 0.0

    @property
    def kind(self) -> str:
        """worker, raylet, gcs_server or other."""
        program = self.command[0].rpartition("/")[2]
        if program in ("raylet", "gcs_server"):
            return program
        # a worker has no title yet while it starts
        starts = any(word.endswith("/default_worker.py") for word in self.command)
        return "worker" if starts or program.startswith("ray::") else "other"


def processes() -> dict[int, Process]:
    """All processes of this machine that still have memory, by pid."""
    found = (_process(name) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in found if process is not None}


def _process(pid: str) -> Process | None:
    try:
        status, command, stat = (
            Path(f"/proc/{pid}/{name}").read_text(errors="replace")
            for name in ("status", "cmdline", "stat")
        )
    except OSError:  # it has ended
        return None
    facts = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    if "VmHWM" not in facts or not command:  # a thread of the kernel, or a process that ended
        return None
    words = tuple(command.rstrip("\0").split("\0"))
    anonymous, most = (1024 * int(facts[key].split()[0]) for key in ("RssAnon", "VmHWM"))
    user, system = stat.rpartition(")")[2].split()[11:13]  # a name may hold spaces
    cpu = (int(user) + int(system)) / TICKS
    return Process(int(pid), int(facts["PPid"]), words, anonymous, most, cpu)


def family(root: int, every: Mapping[int, Process]) -> Iterator[Process]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for process in every.values():
        children.setdefault(process.parent, []).append(process.pid)
    waiting = [root] if root in every else []
    while waiting:
        pid = waiting.pop()
        yield every[pid]
        waiting += children.get(pid, [])


def look(root: int, second: float) -> list[dict[str, Any]]:
    """One row of ``SAMPLES`` for each process of a job."""
    rows = []
    for process in family(root, processes()):
        kind = "driver" if process.pid == root else process.kind
        row = {
            "second": second,
            "pid": process.pid,
            "kind": kind,
            "title": process.command[0] if kind == "worker" else None,
            "anonymous": process.anonymous,
            "most": process.most,
            "cpu": process.cpu,
        }
        rows.append(row | (_store(process) if kind == "raylet" else {}))
    return rows


def _store(raylet: Process) -> dict[str, int]:
    """What a raylet's object store holds: pages in memory, and spilled files."""
    options = dict(word.split("=", 1) for word in raylet.command if "=" in word)
    session, memory = Path(options["--session_dir"]), options["--plasma_directory"]
    touched = 0
    try:
        for link in os.scandir(f"/proc/{raylet.pid}/fd"):
            if os.readlink(link.path).startswith(f"{memory}/plasma"):
                touched += 512 * os.stat(link.path).st_blocks
    except OSError:  # it has ended
        pass
    return {"store": touched, "spilled": sum(map(_size, session.glob("ray_spilled_objects_*/*")))}


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # deleted since it was listed
        return 0


@dataclass
class Sampler:
    """Looks at a process and its descendants until it is stopped, from a thread.

    Attributes:
        root: the process.
        rows: of ``SAMPLES``, so far.
    """

    root: int
    interval: float = INTERVAL
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __enter__(self) -> "Sampler":
        self._began, self._done = time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.rows += look(self.root, time.monotonic() - self._began)
            if self._done.wait(self.interval):
                return

    def table(self) -> pa.Table:
        """What was seen."""
        return pa.Table.from_pylist(self.rows, SAMPLES)


@dataclass(frozen=True)
class Job:
    """What a job has taken.

    Attributes:
        code: its exit code.
        seconds: from its start to its end.
        samples: of ``SAMPLES``.
    """

    code: int
    seconds: float
    samples: pa.Table


def run_job(command: Sequence[str], log: Path) -> Job:
    """Run a command on a Ray of its own, and watch it; what it says goes to ``log``."""
    environment = {**os.environ, "RAY_ADDRESS": "local"}  # a cluster's processes are not its own
    began = time.monotonic()
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=out, env=environment) as process,
        Sampler(process.pid) as sampler,
    ):
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            raise
    return Job(code, time.monotonic() - began, sampler.table())
