"""What made a run: config, code and libraries, and by which names two of them differ."""

import hashlib
import platform
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from sensloc.config import NO_IDENTITY, Config

PACKAGE = Path(__file__).parents[1]
PRESENTATION = frozenset(
    {"report.py", "comparison.py", "figure.py", "cli.py", "latency.py", "page", "stages/report.py"}
)
"""Files and folders that decide how results look, and no row of any table."""

DECISIVE = (
    "sensloc",
    "torch",
    "torchcodec",
    "torchvision",
    "numpy",
    "pillow",
    "scipy",
    "scikit-image",
)
"""Packages that can change a row."""

OTHERS = ("ray", "pyarrow", "scikit-learn", "fsspec")
"""Packages that are good to know."""


@cache
def code() -> dict[str, str]:
    """A hash of each source file that can change a row, by its path in the package."""
    files = sorted(PACKAGE.rglob("*.py"))
    return {
        name: hashlib.blake2b(file.read_bytes(), digest_size=4).hexdigest()
        for file in files
        if not {name := file.relative_to(PACKAGE).as_posix(), name.partition("/")[0]} & PRESENTATION
    }


def identity(config: Config) -> dict[str, Any]:
    """What two runs must share for their rows to stand in one table; plain values, for JSON."""
    return {
        "config": config.identity,
        "code": code(),
        "versions": {name: metadata.version(name) for name in DECISIVE},
    }


def record(config: Config) -> dict[str, Any]:
    """``identity`` with the whole config, and what is good to know: the head of ``run.json``."""
    return {
        **identity(config),
        "config": config.model_dump(mode="json"),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in OTHERS},
        "git_commit": _git_commit(),
    }


def of(found: Mapping[str, Any]) -> dict[str, Any]:
    """The ``identity`` in what ``record`` made."""
    config = {k: v for k, v in found.get("config", {}).items() if k not in NO_IDENTITY}
    return {"config": config, "code": found.get("code"), "versions": found.get("versions")}


def differences(found: Mapping[str, Any], mine: Mapping[str, Any]) -> list[str]:
    """What differs between two nested dicts, a line per key: "config.split.seed: 0 there, 1 here".

    Args:
        found: of the run that is there.
        mine: of the run that wants to go on.
    """
    there, here = dict(_flat(found)), dict(_flat(mine))
    missing = object()

    def said(value: Any) -> str:
        return "nothing" if value is missing else repr(value)

    return [
        f"{key}: {said(a)} there, {said(b)} here"
        for key in sorted(there.keys() | here.keys())
        if (a := there.get(key, missing)) != (b := here.get(key, missing))
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


def _git_commit() -> str | None:
    """Of the checkout that holds this package; null where there is none (see ``code`` then)."""
    try:
        done = subprocess.run(
            ["git", "-C", str(PACKAGE), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
