"""How far a run is, by ``run.json`` and the files: needs neither Ray nor the config file."""

import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from pathlib import PurePath
from typing import Any

import pyarrow.parquet as pq

from sensloc.report.text import aligned
from sensloc.store import lock
from sensloc.store.run import STAGES, RunDir

FILES = {"sensitivity": ("sensitivity", "manifest"), "evaluate": ("predictions", "sensitivity")}
"""Stage -> its folder, and the folder that has as many files when it is complete."""


class Code(IntEnum):
    """Exit codes of ``sensloc status``."""

    COMPLETE = 0
    UNKNOWN = 1
    """No run there, or one that cannot be read."""
    INCOMPLETE = 3
    RUNNING = 4
    FAILED = 5


@dataclass(frozen=True)
class Status:
    """How far a run is.

    Attributes:
        code: the state of the whole.
        stages: each stage's name, its state, and details.
        job: who works on the run now, or None.
        command: what goes on with the run, or None where all is done.
    """

    code: Code
    stages: list[tuple[str, str, str]]
    job: dict[str, Any] | None
    command: str | None

    def text(self, url: str) -> str:
        """Return the status as lines for a terminal."""
        lines = [f"{url}: {self.code.name.lower()}", aligned(self.stages)]
        if self.job is not None and not self.job["dead"]:
            lines.append(f"job: process {self.job['pid']} on {self.job['host']}")
        if self.command is not None:
            lines.append(f"next: {self.command}")
        return "\n".join(lines)


def status(run: RunDir) -> Status:
    """Look at a run directory and say how far it is; nothing is written."""
    begun, job = run.stages(), lock.holder(run.url)
    if begun and begun.keys().isdisjoint(STAGES):
        wanted = list(begun)  # of another job, such as `sensloc pack`
    else:
        wanted = [name for name in STAGES if name != "compare" or name in begun]
    stages = [(name, *_state(run, name, begun.get(name))) for name in wanted]
    states = {state for _, state, _ in stages}
    commands = [stage["command"] for name, stage in begun.items() if name != "report"]
    command: list[str] = commands[-1] if commands else []
    if states == {"done"}:
        return Status(Code.COMPLETE, stages, job, None)
    if job is not None and not job["dead"]:
        return Status(Code.RUNNING, stages, job, f"sensloc status {shlex.quote(run.url)}")
    code = Code.FAILED if "failed" in states else Code.INCOMPLETE
    return Status(code, stages, job, _again(command))


def _again(command: Sequence[str]) -> str:
    """Return the command line of an ``sys.argv``."""
    first, *rest = command or [""]
    if PurePath(first).name in ("sensloc", "__main__.py"):
        return shlex.join(["sensloc", *rest])
    return shlex.join(["python", *command])


def _state(run: RunDir, name: str, stage: dict[str, Any] | None) -> tuple[str, str]:
    """Return a stage's state (done, partial, failed or waiting) and details."""
    if stage is None:
        return "waiting", ""
    if "finished" in stage:
        counts = [key for key in ("images", "rows", "errors", "test_images") if key in stage]
        details = [f"{stage[key]:,} {key.replace('_', ' ')}" for key in counts]
        return "done", ", ".join([*details, f"{stage['seconds']:.0f} s"])
    details = [_progress(run, name), f"attempt {stage['attempts']}"]
    if "failed" in stage:
        details.append(stage["failed"])
    return "failed" if "failed" in stage else "partial", ", ".join(filter(None, details))


def _progress(run: RunDir, name: str) -> str:
    """Return how much of a stage is there, and of how much."""
    if name == "manifest":
        return f"{_rows(run, run.files('work/inspected')):,} images inspected"
    if name == "compare":
        return f"{len(run.files('compare/predictions'))} files of predictions"
    if name not in FILES:
        return ""
    written, whole = (run.files(folder) for folder in FILES[name])
    if name == "sensitivity":
        return f"{_rows(run, written):,} of {_rows(run, whole):,} rows"
    return f"{len(written)} of {len(whole)} files"


def _rows(run: RunDir, files: Sequence[str]) -> int:
    """Count the rows of Parquet files by their footers; one that is not whole has none."""

    def rows(file: str) -> int:
        try:
            with run.filesystem.open(file, "rb") as opened:
                return int(pq.read_metadata(opened).num_rows)
        except (OSError, ValueError):
            return 0

    with ThreadPoolExecutor(16) as pool:
        return sum(pool.map(rows, files))
