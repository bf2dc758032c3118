"""A Ray of three nodes on this machine, a job that is submitted to it, and faults drawn by seed.

Only what was started here is ever killed: the job, and the processes of this cluster's nodes.
"""

import hashlib
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from ray.cluster_utils import Cluster
from ray.job_submission import JobSubmissionClient

BIN = Path(sys.executable).parent

KINDS = ("task", "actor", "node", "driver", "all")
"""A worker that runs a task, an actor's process, a worker node, the job's own process, or every
process of the cluster and the job, as in a power cut."""

ACTORS = ("MapWorker", "Holder")
"""Beginnings of the class names of a job's actors; Ray's own are not killed."""

TABLES = {"manifest": ["image_id"], "sensitivity": ["image_id"]} | {
    "predictions": ["image_id", "method"],
    "corloc": ["method", "scope", "wnid"],
}
"""Folders of a run, and the columns that no two rows share."""

STARTS = 8
"""How often a job is started at most."""

ATTEMPTS = 4
"""Runs in which a fault may look for a victim."""

LOOK = 0.05
"""Seconds between two looks at the run directory."""

LONGEST = 2.0
"""Seconds that a fault waits at most after its moment."""

PATIENCE = 120.0
"""Seconds, beside those of a whole undisturbed run, without anything new: the job hangs."""


# --------------------------------------------------------------------------- the cluster


class Nodes:
    """A head that runs no tasks, and two worker nodes of one logical CPU each.

    Args:
        folder: for Ray's own files; its path is short (a socket's has 107 bytes at most).
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.numbers = folder, itertools.count()
        self.start()

    def start(self) -> None:
        """Start a new cluster; its dashboard takes jobs."""
        (self.folder / "ray").mkdir(parents=True, exist_ok=True)
        port = free_port()
        self.dashboard = f"http://127.0.0.1:{port}"
        self.__dict__.pop("client", None)
        with self.environment():
            self.cluster = Cluster(
                initialize_head=True,
                head_node_args={
                    "num_cpus": 0,
                    "include_dashboard": True,
                    "dashboard_host": "127.0.0.1",
                    "dashboard_port": port,
                    "dashboard_agent_listen_port": free_port(),
                    "temp_dir": f"{self.folder}/ray",
                    "_system_config": {"health_check_period_ms": 1000},
                },
            )
        for _ in range(2):
            self.add()

    @cached_property
    def client(self) -> JobSubmissionClient:
        """A client of the dashboard, once it takes jobs: it answers before its agent does."""
        for _ in range(120):
            try:
                client = JobSubmissionClient(self.dashboard)
                client.submit_job(entrypoint="true")
            except (ConnectionError, RuntimeError) as error:
                reason = error
                time.sleep(0.5)
            else:
                return client
        raise AssertionError(f"{self.dashboard} takes no job: {reason}")

    def add(self) -> None:
        """Start one more worker node.

        It has a folder of its own: in a common one, each node would remove the copy of a submitted
        job that another works in.
        """
        with self.environment():
            self.cluster.add_node(
                num_cpus=1, object_store_memory=500 * 2**20,
                temp_dir=f"{self.folder}/{next(self.numbers)}",
            )  # fmt: skip

    @contextmanager
    def environment(self) -> Iterator[None]:
        """Set what Ray and its jobs are started with; afterwards nothing of it is left here."""
        handler = signal.getsignal(signal.SIGTERM)  # a node sets its own
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")  # for submitted jobs
            patch.setenv("RAY_TMPDIR", str(self.folder))  # where ``Cluster`` writes its address
            patch.setenv("RAY_AUTH_MODE", "disabled")  # on loopback
            patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
            patch.setenv("RAY_idle_worker_killing_time_threshold_ms", "60000")
            patch.delenv("RAY_ADDRESS", raising=False)
            try:
                yield
            finally:
                signal.signal(signal.SIGTERM, handler)

    @property
    def address(self) -> str:
        """The value for RAY_ADDRESS."""
        return str(self.cluster.address)

    def workers(self, *nodes: Any) -> Iterator[tuple[psutil.Process, str]]:
        """Yield the worker processes of some nodes, or of all, and their titles: ``ray::IDLE``."""
        for node in nodes or list(self.cluster.worker_nodes):
            for process in _children(node.all_processes["raylet"]):
                try:
                    yield process, " ".join(process.cmdline()).strip()
                except psutil.Error:  # it has gone
                    continue

    def actors(self) -> dict[int, str]:
        """Return the class of each actor, by its process id."""
        table = self.cluster.global_state.actor_table(None, actor_state_name="ALIVE")
        return {actor["Pid"]: actor["ActorClassName"] for actor in table.values()}

    def lose_node(self, rng: random.Random) -> str:
        """Take down a worker node at once, one at work if there is any; a fresh one comes.

        Returns:
            The titles of the workers that were at work there.
        """
        busy = {
            node: sorted(title for _, title in self.workers(node) if at_work(title))
            for node in sorted(self.cluster.worker_nodes, key=lambda node: str(node.unique_id))
        }
        node = rng.choice([node for node, titles in busy.items() if titles] or list(busy))
        self.cluster.remove_node(node, allow_graceful=False)
        self.add()
        return ", ".join(busy[node]) or "idle"

    def kill(self) -> None:
        """Kill every process of the cluster, at once."""
        nodes = self.cluster.list_all_nodes()
        infos = [info for node in nodes for kind in node.all_processes.values() for info in kind]
        kill(_running(infos) + _children(infos))
        for node in nodes:
            node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)


def _running(infos: Sequence[Any]) -> list[psutil.Process]:
    """Return a node's own processes, those that still run."""
    pids = [info.process.pid for info in infos if info.process.poll() is None]
    return [psutil.Process(pid) for pid in pids]


def _children(infos: Sequence[Any]) -> list[psutil.Process]:
    """Return the processes that they have started."""
    return [child for process in _running(infos) for child in process.children(recursive=True)]


def at_work(title: str) -> bool:
    """Tell whether a worker process with such a title runs a task, or holds an actor."""
    return title.startswith("ray::") and not title.endswith(("IDLE", "Agent"))


def kill(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Send SIGKILL to all and see them gone. Return those that had not gone before."""
    killed = []
    for process in processes:
        try:
            process.kill()
            killed.append(process)
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(killed, 30)
    assert not alive, f"not to be killed: {alive}"
    return killed


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# --------------------------------------------------------------------------- the job


@dataclass(frozen=True)
class Job:
    """A command line, and where it reads and writes.

    Attributes:
        config: the TOML file.
        data: folder of the data set, which the job makes.
        output: the run directory.
    """

    config: Path
    data: Path
    output: Path

    @property
    def log(self) -> Path:
        """The output of all its processes."""
        return self.output.with_suffix(".log")

    @property
    def command(self) -> list[str]:
        """The command line, without its Python."""
        options = [f"--data={self.data}", f"--output={self.output}"]
        return ["-m", "sensloc", "run", str(self.config), *options]

    def start(self, nodes: Nodes) -> subprocess.Popen[bytes]:
        """Start the job's process here; it joins the cluster."""
        with nodes.environment():
            return self._process([sys.executable, *self.command], RAY_ADDRESS=nodes.address)

    def submit(self, nodes: Nodes, *options: str) -> subprocess.Popen[bytes]:
        """Start ``ray job submit``: the job's process is the cluster's, and works in a copy."""
        assert nodes.client
        submit = [f"{BIN}/ray", "job", "submit", f"--address={nodes.dashboard}", *options]
        with nodes.environment():
            return self._process([*submit, "--working-dir=.", "--", "python", *self.command])

    def _process(self, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command, cwd=ROOT, env=os.environ | environment,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def files(self) -> Counter[str]:
        """Count the files that each folder of the run directory holds now; "." is itself."""
        held: Counter[str] = Counter()
        for folder, inner, names in os.walk(self.output):
            inner[:] = [name for name in inner if not name.startswith(".")]
            shown = [name for name in names if not name.startswith(".")]
            held[os.path.relpath(folder, self.output)] = len(shown)
        return +held

    def tail(self) -> str:
        """Return the end of its output."""
        return self.log.read_text(errors="replace")[-4000:]


Timeline = list[tuple[str, int]]
"""A run's history: in order, a folder has come to so many files."""


def undisturbed(nodes: Nodes, job: Job) -> tuple[Timeline, float]:
    """Submit the job and see it to its end. Return its history, and the seconds that it took."""
    timeline: Timeline = [(".", 0)]
    seen, began, process = Counter[str](), time.monotonic(), job.submit(nodes)
    try:
        while process.poll() is None:
            now = job.files()
            timeline += [(folder, now[folder]) for folder in now - seen]
            seen |= now
            time.sleep(LOOK)
    finally:
        process.kill()
    assert process.wait() == 0, job.tail()
    return timeline, time.monotonic() - began


# --------------------------------------------------------------------------- the faults


@dataclass(frozen=True)
class Fault:
    """A death, and its moment.

    Attributes:
        kind: one of KINDS.
        at: index into the timeline of what has come before.
        delay: seconds more.
    """

    kind: str
    at: int
    delay: float

    def due(self, timeline: Timeline, seen: Counter[str]) -> bool:
        """Tell whether its moment has come, where each folder has held so many files at once."""
        folder, files = timeline[self.at]
        last = max(i for i, (name, _) in enumerate(timeline) if name == folder)
        later = {name for name, _ in timeline[last:]} - {name for name, _ in timeline[: last + 1]}
        return seen[folder] >= files or any(seen[name] for name in later)

    def text(self, timeline: Timeline) -> str:
        """Return a line for people."""
        folder, files = timeline[self.at]
        return f"{self.kind} {self.delay:.1f} s after {folder} #{files}"


def draw(rng: random.Random) -> list[str]:
    """Draw one to three kinds of faults."""
    return [rng.choice(KINDS) for _ in range(rng.randint(1, 3))]


def moments(rng: random.Random, kinds: Sequence[str], timeline: Timeline) -> list[Fault]:
    """Draw when each fault comes: before one of the files of a folder, both drawn evenly.

    An actor's folder is the one that actors write.

    Returns:
        The faults in their order.
    """
    folders = sorted({folder for folder, _ in timeline})
    faults = []
    for kind in kinds:
        drawn = rng.choice(folders)
        folder = "sensitivity" if kind == "actor" else drawn
        file = rng.choice([i for i, (name, n) in enumerate(timeline) if name == folder and n])
        faults.append(Fault(kind, file - 1, rng.uniform(0, LONGEST)))
    return sorted(faults, key=lambda fault: (fault.at, fault.delay))


def strike(kind: str, nodes: Nodes, process: subprocess.Popen[bytes], rng: random.Random) -> str:
    """Deliver a fault. Return what it hit; empty where there was no victim."""
    if process.poll() is not None:
        return ""
    if kind == "node":
        return nodes.lose_node(rng)
    if kind in ("driver", "all"):
        process.kill()
        if kind == "all":
            nodes.kill()
            nodes.start()
        return "the job" if process.wait() == -signal.SIGKILL else ""
    actors = nodes.actors()
    victims = [
        (worker, title)
        for worker, title in nodes.workers()
        if (kind == "actor" and actors.get(worker.pid, "").startswith(ACTORS))
        or (kind == "task" and worker.pid not in actors and at_work(title))
    ]
    rng.shuffle(victims)
    return next((title for worker, title in victims if kill([worker])), "")


@dataclass
class Record:
    """The faults that a job has met, and how it ended.

    Attributes:
        delivered: faults, and what they hit.
        missed: kinds of faults that found no victim.
        exits: codes of the job's processes, in order.
        seconds: from the first start to the end.
    """

    delivered: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    exits: list[int] = field(default_factory=list)
    seconds: float = 0

    def __str__(self) -> str:
        missed = "".join(f" | no victim: {kind}" for kind in self.missed)
        hits = "; ".join(self.delivered)
        return f"{hits}{missed} | exit codes {self.exits} | {self.seconds:.0f} s"


def disturbed(
    nodes: Nodes,
    job: Job,
    faults: Sequence[Fault],
    timeline: Timeline,
    rng: random.Random,
    patience: float,
) -> Record:
    """See the job to its end through the faults, starting it again whenever it has died.

    Args:
        nodes: all alive, also afterwards.
        job: whose run directory is new.
        faults: in their order; one that finds no victim looks for one until the job ends.
        timeline: of the undisturbed run.
        rng: chooses among victims.
        patience: seconds without a new file, fault or start after which the job is said to hang.

    Raises:
        AssertionError: it hangs, or dies too often.
    """
    record, todo, seen = Record(), list(faults), Counter[str]()
    began = last = time.monotonic()
    due: float | None = None
    process = job.start(nodes)
    try:
        while process.poll() != 0:
            now, most = time.monotonic(), seen | job.files()
            if most != seen:
                seen, last = most, now
            if process.poll() is not None:
                record.exits.append(process.returncode)
                assert len(record.exits) < STARTS, f"{record}: {job.tail()}"
                process, last = job.start(nodes), now
            if todo and due is None and todo[0].due(timeline, seen):
                due = now + todo[0].delay
            if due is not None and now >= due:
                hit = strike(todo[0].kind, nodes, process, rng)
                if hit:
                    record.delivered.append(f"{todo.pop(0).text(timeline)} ({hit})")
                    due, last = None, time.monotonic()
            assert now - last < patience, f"{record}: no file for {patience} s: {job.tail()}"
            time.sleep(LOOK)
    finally:
        process.kill()
        record.exits.append(process.wait())
    record.missed = [fault.kind for fault in todo]
    record.seconds = time.monotonic() - began
    return record


@dataclass(frozen=True)
class Arena:
    """A cluster, a job that has run there undisturbed, and how that went."""

    nodes: Nodes
    job: Job
    timeline: Timeline
    seconds: float

    @classmethod
    def of(cls, nodes: Nodes, config: Path, folder: Path) -> "Arena":
        """Run the job once, undisturbed."""
        job = Job(config, folder / "data", folder / "undisturbed")
        return cls(nodes, job, *undisturbed(nodes, job))

    def survive(self, seed: int, kinds: Sequence[str] = ()) -> Iterator[Record]:
        """Run the job through a seed's faults, and again through those that found no victim.

        Args:
            seed: of moments and victims, and of the kinds where none are given.
            kinds: of the faults.

        Raises:
            AssertionError: its results differ from the undisturbed run's, or it never ends.
        """
        rng = random.Random(seed)
        kinds, attempts = kinds or draw(rng), 0
        while kinds:
            attempts += 1
            assert attempts <= ATTEMPTS, f"no victim for {kinds}"
            shutil.rmtree(self.job.data)
            job = replace(self.job, output=self.job.output.with_name(f"seed{seed}-{attempts}"))
            faults = moments(rng, kinds, self.timeline)
            patience = PATIENCE + self.seconds
            record = disturbed(self.nodes, job, faults, self.timeline, rng, patience)
            yield record
            assert_same(job.output, self.job.output)
            shutil.rmtree(job.output)
            kinds = record.missed


# --------------------------------------------------------------------------- the results


def rows(output: Path) -> dict[str, pa.Table]:
    """Read the tables of a run, sorted.

    Raises:
        AssertionError: two rows share their key.
    """
    tables = {}
    for folder, key in TABLES.items():
        files = sorted((output / folder).glob("*.parquet"))
        table = pa.concat_tables([pq.read_table(file) for file in files])
        doubles = len(table) - len(table.group_by(key).aggregate([]))
        assert doubles == 0, f"{doubles} rows of {folder} share their {key}"
        tables[folder] = table.sort_by([(column, "ascending") for column in key])
    return tables


def digests(output: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a run, by name; its diary and the page have none."""
    return {
        str(file.relative_to(output)): ""
        if file.name in ("run.json", "report.html")
        else hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(output.rglob("*"))
        if file.is_file()
    }


def assert_same(output: Path, expected: Path) -> None:
    """Check that two runs hold the same, to the bit, and nothing else.

    Raises:
        AssertionError: naming what differs.
    """
    tables = rows(output)
    for folder, table in rows(expected).items():
        assert tables[folder].equals(table), f"the rows of {folder} differ"
    files, wanted = digests(output), digests(expected)
    differ = {name for name in files | wanted if files.get(name) != wanted.get(name)}
    assert not differ, f"files that are missing, too many or others: {sorted(differ)}"
