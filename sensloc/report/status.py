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
    """What a run's status is made of.

    Attributes:
        code: the state of the whole.
        stages: per stage: its name, its state, and details.
        job: who works on it now, or None.
        command: that goes on with it, or None where all is done.
    """

    code: Code
    stages: list[tuple[str, str, str]]
    job: dict[str, Any] | None
    command: str | None

    def text(self, url: str) -> str:
        """For a terminal."""
        lines = [f"{url}: {self.code.name.lower()}", aligned(self.stages)]
        if self.job is not None and not self.job["dead"]:
            lines.append(f"job: process {self.job['pid']} on {self.job['host']}")
        if self.command is not None:
            lines.append(f"next: {self.command}")
        return "\n".join(lines)


def status(run: RunDir) -> Status:
    """Look at a run directory; nothing is written."""
    begun, job = run.stages(), lock.holder(run.url)
    if begun and begun.keys().isdisjoint(STAGES):
        wanted = list(begun)  # of another job, such as `sensloc pack`
    else:
        wanted = [name for name in STAGES if name != "compare" or name in begun]
    stages = [(name, *_state(run, name, begun.get(name))) for name in wanted]
    states = {state for _, state, _ in stages}
    made_by = [made["command"] for name, made in begun.items() if name != "report"]
    command: list[str] = made_by[-1] if made_by else []
    if states == {"done"}:
        return Status(Code.COMPLETE, stages, job, None)
    if job is not None and not job["dead"]:
        return Status(Code.RUNNING, stages, job, f"sensloc status {shlex.quote(run.url)}")
    code = Code.FAILED if "failed" in states else Code.INCOMPLETE
    return Status(code, stages, job, _again(command))


def _again(command: Sequence[str]) -> str:
    """The command line of such an ``sys.argv``."""
    first, *rest = command or [""]
    if PurePath(first).name in ("sensloc", "__main__.py"):
        return shlex.join(["sensloc", *rest])
    return shlex.join(["python", *command])


def _state(run: RunDir, name: str, made: dict[str, Any] | None) -> tuple[str, str]:
    """done, partial, failed or waiting; and details."""
    if made is None:
        return "waiting", ""
    if "finished" in made:
        known = {
            key: made[key] for key in ("images", "rows", "errors", "test_images") if key in made
        }
        said = [f"{value:,} {key.replace('_', ' ')}" for key, value in known.items()]
        return "done", ", ".join([*said, f"{made['seconds']:.0f} s"])
    details = [_progress(run, name), f"attempt {made['attempts']}"]
    if "failed" in made:
        details.append(made["failed"])
    return "failed" if "failed" in made else "partial", ", ".join(filter(None, details))


def _progress(run: RunDir, name: str) -> str:
    """How many rows there are, of how many."""
    if name == "manifest":
        looked_at = _rows(run, run.files("work/inspected"))
        return f"{looked_at:,} images inspected"
    if name == "compare":
        return f"{len(run.files('compare/predictions'))} files of predictions"
    if name not in FILES:
        return ""
    mine, whole = (run.files(folder) for folder in FILES[name])
    if name == "sensitivity":
        return f"{_rows(run, mine):,} of {_rows(run, whole):,} rows"
    return f"{len(mine)} of {len(whole)} files"


def _rows(run: RunDir, files: Sequence[str]) -> int:
    """Of Parquet files, by their footers; one that is not whole has none."""

    def rows(file: str) -> int:
        try:
            with run.filesystem.open(file, "rb") as opened:
                return int(pq.read_metadata(opened).num_rows)
        except (OSError, ValueError):
            return 0

    with ThreadPoolExecutor(16) as pool:
        return sum(pool.map(rows, files))
