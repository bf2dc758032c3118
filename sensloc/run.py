"""The run directory: every path of a run, and ``run.json``, which is written last."""

import json
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import fsspec
import fsspec.core
import pyarrow.fs as pafs

from sensloc.config import Config
from sensloc.errors import SenslocError

STAGES = ("manifest", "classifier", "sensitivity", "fit", "evaluate", "figure", "compare")
"""In an order in which each comes after those that it builds on."""


class RunError(SenslocError):
    """A run that cannot go on: says what is missing or differs, and what to do."""


@dataclass(frozen=True)
class RunDir:
    """A folder or object-store prefix that holds one run.

    Attributes:
        url: of the directory.
        config: of the run.
    """

    url: str
    config: Config

    @classmethod
    def open(cls, config: Config) -> "RunDir":
        """Open ``config.output``, new or begun by the same config.

        Raises:
            RunError: it holds a run of another config.
        """
        run = cls(config.output.rstrip("/"), config)
        found = run.facts().get("config_hash", config.fingerprint)
        if found != config.fingerprint:
            raise RunError(
                f"{run.url} holds a run of another config ({found}, this one is "
                f"{config.fingerprint}): choose another --output, or delete that directory"
            )
        return run

    @property
    def filesystem(self) -> fsspec.AbstractFileSystem:
        """The fsspec file system of the directory."""
        return fsspec.core.url_to_fs(self.url)[0]

    @property
    def arrow(self) -> pafs.FileSystem:
        """The same file system for pyarrow and Ray Data."""
        return pafs.PyFileSystem(pafs.FSSpecHandler(self.filesystem))

    def at(self, name: str) -> str:
        """URL of a file or folder of the run."""
        return f"{self.url}/{name}"

    def path(self, name: str) -> str:
        """The same without its protocol, as ``filesystem`` and ``arrow`` want it."""
        return str(fsspec.core.url_to_fs(self.at(name))[1])

    def files(self, stage: str) -> list[str]:
        """The Parquet files of a stage, sorted, as ``path`` gives them."""
        files = self.filesystem
        files.invalidate_cache()  # other processes write here too
        return sorted(files.glob(f"{self.path(stage)}/*.parquet"))

    def exists(self, name: str) -> bool:
        """Is there such a file or folder?"""
        return bool(self.filesystem.exists(self.path(name)))

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file whole: a reader sees the old one or the new one, never half of it."""
        data = content.encode() if isinstance(content, str) else content
        files, path = self.filesystem, self.path(name)
        files.makedirs(path.rpartition("/")[0], exist_ok=True)
        files.pipe_file(f"{path}.part", data)
        files.mv(f"{path}.part", path)

    def read(self, name: str) -> bytes:
        """A file whole."""
        return bytes(self.filesystem.cat_file(self.path(name)))

    def facts(self) -> dict[str, Any]:
        """What ``run.json`` says; empty before the first stage has begun."""
        return json.loads(self.read("run.json")) if self.exists("run.json") else {}

    def finished(self, stage: str) -> bool:
        """Has the stage been completed?"""
        return stage in self.facts().get("stages", {})

    def require(self, *stages: str) -> None:
        """Stop unless the stages have been completed."""
        for stage in stages:
            if not self.finished(stage):
                raise RunError(f"{self.url}: {stage} is not complete: run jobs/{stage}.py first")

    @contextmanager
    def stage(self, name: str, *outputs: str) -> Iterator[dict[str, Any]]:
        """Run a stage anew: forget it and those after it, delete its files, record success last.

        Args:
            name: of the stage.
            outputs: its files and folders in the run directory.

        Yields:
            A dict of facts for ``run.json``, to be filled by the stage.
        """
        record = self.facts() or self._identity()
        after = STAGES[STAGES.index(name) :] if name in STAGES else (name,)
        record["stages"] = {k: v for k, v in record["stages"].items() if k not in after}
        self.write("run.json", json.dumps(record, indent=2))
        for output in outputs:
            if self.exists(output):
                self.filesystem.rm(self.path(output), recursive=True)
        begun = datetime.now(UTC)
        facts: dict[str, Any] = {}
        yield facts
        seconds = round((datetime.now(UTC) - begun).total_seconds(), 2)
        record["stages"][name] = {"begun": begun.isoformat(), "seconds": seconds, **facts}
        self.write("run.json", json.dumps(record, indent=2))

    def _identity(self) -> dict[str, Any]:
        packages = ("sensloc", "ray", "torch", "torchvision", "numpy", "pyarrow", "scikit-learn")
        return {
            "name": self.config.name,
            "config_hash": self.config.fingerprint,
            "config": self.config.model_dump(mode="json"),
            "versions": {
                "python": platform.python_version(),
                **{name: metadata.version(name) for name in packages},
            },
            "git_commit": _git_commit(),
            "stages": {},
        }


def _git_commit() -> str | None:
    """Of the working directory, where it is a checkout."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
