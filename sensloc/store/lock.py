"""One job per run directory, on any file system; what a dead job leaves needs nobody to clean up.

The holder of a lock renews it every ``BEAT`` seconds. Who finds a lock watches it: one that is
renewed is held, one that is not was left by a job that died, and is taken over by creating the
lock of the next number, which only one can do. A holder that finds its lock gone (its machine
slept, and another job took over) stops. No clocks are compared.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec.core

from sensloc.errors import SenslocError
from sensloc.store import storage

log = logging.getLogger(__name__)

FOLDER = ".lock"
BEAT = 10.0
"""Seconds between two renewals."""

PATIENCE = 3 * BEAT
"""Seconds without a renewal after which a job is taken for dead."""


class LockedError(SenslocError):
    """Another job works on the run directory."""


@contextmanager
def held(url: str, lost: Callable[[], None], beat: float = BEAT) -> Iterator[None]:
    """Hold the lock of a run directory.

    Args:
        url: where the directory is, local or on an object store.
        lost: called, from another thread, when another job has taken over.
        beat: seconds between two renewals.

    Raises:
        LockedError: another job holds it.
    """
    files, folder = _at(url)
    job = {
        "job": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "beat": 0,
    }
    path = _take(files, folder, job, PATIENCE / BEAT * beat)
    done = threading.Event()
    keeper = threading.Thread(target=_keep, args=(files, path, job, done, lost, beat), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
        if (_read(files, path) or {}).get("job") == job["job"]:
            files.rm_file(path)


def holder(url: str) -> dict[str, Any] | None:
    """Return who holds the lock, or left it: host, pid, and whether it is known to be dead."""
    files, folder = _at(url)
    newest = _newest(files, folder)
    if newest is None:
        return None
    content = _read(files, newest)
    return None if content is None else content | {"dead": _is_dead(content)}


def _at(url: str) -> tuple[Any, str]:
    """Return the file system of a run directory, and the path of its locks."""
    files, path = fsspec.core.url_to_fs(url)
    return files, f"{path}/{FOLDER}"


def _take(files: Any, folder: str, job: dict[str, Any], patience: float) -> str:
    """Create the first lock, or the one after a dead job's; return its path.

    A listing may miss a lock that another job replaces meanwhile, and what it shows may be old by
    the time that it is acted on: so the new lock counts only if no other is beside it but the
    dead job's, as it was found.

    Raises:
        LockedError: another job holds it, or takes it now.
    """
    dead = _newest(files, folder)
    number, left = 0, None
    if dead is not None:
        number = _number(dead)
        left = _read(files, dead)
        if left is not None and not _is_dead(left):
            _watch(files, dead, left, patience)
    path = f"{folder}/{number + 1:06d}.json"
    try:
        storage.create(files, path, json.dumps(job).encode())
    except FileExistsError as error:
        raise LockedError(_refusal(folder, _read(files, path) or {})) from error
    for beside in _locks(files, folder):
        content = None if beside == path else _read(files, beside)
        if content is not None and (beside != dead or content != left):
            files.rm_file(path)
            raise LockedError(_refusal(folder, content))
    if dead is not None:
        if files.exists(dead):
            files.rm_file(dead)
        log.info("goes on where another job was cut off")
    return path


def _watch(files: Any, path: str, left: dict[str, Any], patience: float) -> None:
    """Wait until a lock has not been renewed for ``patience`` seconds, or is gone.

    Raises:
        LockedError: it was renewed.
    """
    log.info("a job on %s may still work here: watching for %.0f s", left.get("host"), patience)
    until = time.monotonic() + patience
    while time.monotonic() < until:
        time.sleep(patience / 30)
        now = _read(files, path)
        if now is None:
            return
        if now != left:
            raise LockedError(_refusal(path.rpartition("/")[0], now))


def _refusal(folder: str, other: dict[str, Any]) -> str:
    """Return the message about a job that holds the lock."""
    return (
        f"{folder.rpartition('/')[0]}: another job works on this run (process "
        f"{other.get('pid', '?')} on {other.get('host', '?')}): wait for it or stop it, or choose "
        "another --output"
    )


def _keep(
    files: Any,
    path: str,
    job: dict[str, Any],
    done: threading.Event,
    lost: Callable[[], None],
    beat: float,
) -> None:
    """Renew the lock until ``done``; a store that does not answer is asked again."""
    while not done.wait(beat):
        try:
            if (_read(files, path) or {}).get("job") != job["job"]:
                lost()
                return
            job["beat"] += 1
            storage.replace(files, path, json.dumps(job).encode())
        except Exception as error:  # every file system raises kinds of its own
            log.warning("%s cannot be renewed now: %s", path, error)


def _is_dead(content: dict[str, Any]) -> bool:
    """Tell whether the holder is a process of this machine that is no more."""
    if content.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(content["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, KeyError, ValueError):
        return False
    return False


def _locks(files: Any, folder: str) -> list[str]:
    """Return the paths of all locks, as the storage lists them now."""
    files.invalidate_cache()
    return sorted(files.glob(f"{folder}/*.json"))


def _newest(files: Any, folder: str) -> str | None:
    """Return the path of the lock of the highest number, if there is a lock."""
    return max(_locks(files, folder), key=_number, default=None)


def _number(path: str) -> int:
    """Return the number in a lock's name."""
    return int(Path(path).stem)


def _read(files: Any, path: str) -> dict[str, Any] | None:
    """Return a lock's content: empty where it is just being written, None where it is gone."""
    try:
        content = json.loads(files.cat_file(path))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
