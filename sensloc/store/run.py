"""The run directory: every path of a run, and ``run.json``, which says what is complete."""

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import fsspec
import fsspec.core
import pyarrow.fs as pafs

from sensloc.config import Config
from sensloc.errors import SenslocError, one_line
from sensloc.store import lock, provenance, storage

log = logging.getLogger(__name__)

STAGES = (
    *("manifest", "classifier", "foreground", "sensitivity", "fit", "evaluate"),
    *("localizer", "figure", "compare", "report"),
)
"""In an order in which each comes after those that it builds on."""

MOST_DIFFERENCES = 8
"""As many are named in a message."""


class RunError(SenslocError):
    """A run that cannot go on: says what is missing or differs, and what to do."""


@dataclass(frozen=True)
class RunDir:
    """A folder or object-store prefix that holds one run.

    Attributes:
        url: where the directory is.
        config: the run's.
    """

    url: str
    config: Config

    @classmethod
    def open(cls, config: Config) -> "RunDir":
        """Open ``config.output``: new, or begun by the same config, code and libraries.

        Raises:
            RunError: it holds a run of others, which are named.
        """
        run = cls(config.output.rstrip("/"), config)
        record = run.facts()
        if record:
            run._refuse(provenance.differences(provenance.of(record), provenance.identity(config)))
        return run

    @classmethod
    def found(cls, url: str) -> "RunDir":
        """Return the run in a directory, whoever made it.

        Raises:
            RunError: there is none, or this version of sensloc cannot read its config.
        """
        try:
            with fsspec.open(f"{url}/run.json", "rb") as file:
                config = Config.model_validate(json.load(file)["config"])
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RunError(f"{url}: no run there (no run.json)") from error
        except (KeyError, ValueError) as error:
            raise RunError(
                f"{url}/run.json: not of this version of sensloc: use the one that made it, or "
                f"make the run again with this one ({one_line(str(error))})"
            ) from error
        return cls(url, config)

    def _refuse(self, differences: list[str]) -> None:
        """Refuse to go on with a run that was made otherwise.

        Raises:
            RunError: there are differences; names them.
        """
        if not differences:
            return
        named, more = differences[:MOST_DIFFERENCES], len(differences) - MOST_DIFFERENCES
        raise RunError(
            "\n  ".join(
                [
                    f"{self.url} holds a run that was made otherwise: choose another --output, or "
                    "delete that directory. What differs:",
                    *named,
                    *([f"and {more} more"] if more > 0 else []),
                ]
            )
        )

    # ----------------------------------------------------------------------- files

    @property
    def filesystem(self) -> fsspec.AbstractFileSystem:
        """The fsspec file system of the directory."""
        return fsspec.core.url_to_fs(self.url)[0]

    @property
    def arrow(self) -> pafs.FileSystem:
        """The same file system for pyarrow."""
        return pafs.PyFileSystem(pafs.FSSpecHandler(self.filesystem))

    def at(self, name: str) -> str:
        """Return the URL of a file or folder of the run."""
        return f"{self.url}/{name}"

    def path(self, name: str) -> str:
        """Return ``at`` without its protocol, as ``filesystem`` and ``arrow`` want it."""
        return str(fsspec.core.url_to_fs(self.at(name))[1])

    def files(self, stage: str) -> list[str]:
        """Return the Parquet files of a stage, sorted, as ``path`` gives them."""
        files = self.filesystem
        files.invalidate_cache()  # other processes write here too
        return sorted(files.glob(f"{self.path(stage)}/*.parquet"))

    def file(self, stage: str, unit: str) -> str:
        """Return the path of a unit's Parquet file, as ``files`` gives it."""
        return self.path(f"{stage}/{unit}.parquet")

    def exists(self, name: str) -> bool:
        """Tell whether there is such a file or folder."""
        self.filesystem.invalidate_cache()
        return bool(self.filesystem.exists(self.path(name)))

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file whole: a reader sees the old one or the new one, never half of it."""
        data = content.encode() if isinstance(content, str) else content
        storage.replace(self.filesystem, self.path(name), data)

    def read(self, name: str) -> bytes:
        """Return a file whole."""
        return bytes(self.filesystem.cat_file(self.path(name)))

    def remove(self, *names: str) -> None:
        """Delete files and folders; those that are not there are no error."""
        for name in names:
            if self.exists(name):
                self.filesystem.rm(self.path(name), recursive=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the run directory against other jobs; a job that has lost it is interrupted."""

        def lost() -> None:
            log.error("%s: another job has taken over: this one stops", self.url)
            threading.Timer(30, os._exit, (1,)).start()  # if it does not
            os.kill(os.getpid(), signal.SIGINT)

        with lock.held(self.url, lost):
            storage.remove_parts(self.filesystem, self.path("").rstrip("/"))  # of a dead job
            yield

    # ----------------------------------------------------------------------- stages

    def facts(self) -> dict[str, Any]:
        """Return what ``run.json`` says; nothing before the first stage has begun."""
        try:
            return dict(json.loads(self.read("run.json")))
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def stages(self) -> dict[str, dict[str, Any]]:
        """Return the stages that have begun, by name: see ``stage``."""
        return dict(self.facts().get("stages", {}))

    def finished(self, stage: str) -> bool:
        """Tell whether the stage has been completed."""
        return "finished" in self.stages().get(stage, {})

    def require(self, *stages: str) -> None:
        """Make sure that stages have been completed.

        Raises:
            RunError: one has not; names its command.
        """
        for stage in stages:
            if not self.finished(stage):
                raise RunError(f"{self.url}: {stage} is not complete: run `sensloc {stage}` first")

    @contextmanager
    def stage(
        self,
        name: str,
        *outputs: str,
        of: Mapping[str, Any] | None = None,
        seen: Mapping[str, str] | None = None,
        **kept: Any,
    ) -> Iterator[dict[str, Any]]:
        """Run a stage; its completion is recorded last.

        One that was cut off goes on with what it has written. Any other begins anew: it and those
        after it are forgotten, its outputs deleted.

        Args:
            name: of the stage.
            outputs: its files and folders in the run directory.
            of: what its rows are made of beside the config, such as a hash of weights.
            seen: what may differ between attempts, such as the kind of CPU: all that was seen is
                recorded, and an attempt that adds to it is logged as a warning.
            kept: values that the first attempt settles for those that go on with it.

        Yields:
            A dict of facts for ``run.json``, to be filled by the stage; it holds ``kept``.

        Raises:
            RunError: it was cut off, and its rows are made of something else; which is named.
        """
        record, stage = self._begun(name, outputs, dict(of or {}), dict(seen or {}), kept)
        began, facts = _now(), dict(stage["kept"])
        try:
            yield facts
        except BaseException as error:
            stage["failed"] = f"{type(error).__name__}: {error}".partition("\n")[0]
            self._record(record)
            raise
        seconds = round((_now() - began).total_seconds(), 2)
        for output in outputs:
            storage.remove_parts(self.filesystem, self.path(output))
        stage |= {"finished": _now().isoformat(), "seconds": seconds, **facts}
        self._record(record)

    def _begun(
        self,
        name: str,
        outputs: Sequence[str],
        of: dict[str, Any],
        seen: dict[str, str],
        kept: dict[str, Any],
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Record an attempt of a stage: see ``stage``.

        Returns:
            What ``run.json`` holds now, and in it the part that is the stage's.
        """
        record = self.facts() or {
            "name": self.config.name,
            "config_hash": self.config.fingerprint,
            **provenance.record(self.config),
            "stages": {},
        }
        stage = record["stages"].get(name)
        if stage is None or "finished" in stage:
            after = STAGES[STAGES.index(name) :] if name in STAGES else (name,)
            record["stages"] = {k: v for k, v in record["stages"].items() if k not in after}
            self._record(record)
            self.remove(*outputs)
            stage = {"begun": _now().isoformat(), "attempts": 0, "of": of, "seen": {}, "kept": kept}
        else:
            self._refuse(provenance.differences(stage["of"], of))
            log.info("%s goes on where it was cut off", name)
        stage = {key: value for key, value in stage.items() if key != "failed"}
        stage["seen"] = {
            key: _also(stage.get("seen", {}).get(key, []), seen[key], key) for key in seen
        }
        stage |= {"attempts": stage["attempts"] + 1, "command": sys.argv}
        record["stages"][name] = stage
        self._record(record)
        return record, stage

    def _record(self, record: Mapping[str, Any]) -> None:
        self.write("run.json", json.dumps(record, indent=2))


def _also(before: list[str], value: str, key: str) -> list[str]:
    """Return the values that attempts saw and another one's, after a warning if it is new."""
    if value in before:
        return before
    if before:
        log.warning(
            "goes on with %s %s, and was begun with %s: rows may differ by rounding",
            *(key, value, ", ".join(before)),
        )
    return [*before, value]


def _now() -> datetime:
    return datetime.now(UTC)
