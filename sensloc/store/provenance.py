"""What made a run: config, code, libraries and machine, and by which names two of them differ."""

import hashlib
import platform
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from sensloc.config import NO_IDENTITY, Config

PACKAGE = Path(__file__).parents[1]

SHOWN = ("report", "init", "stages/views", "arguments.py", "command.py", "cli.py", "__main__.py")
"""Folders and files that decide how results look, or begin a config, and no row of any table."""

COMPARED = ("comparison", "baselines")
"""Folders that decide rows of a comparison alone: part of its identity, not of its run's."""

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


class Machine(NamedTuple):
    """What a network's numbers depend on beside its weights.

    Attributes:
        device: "cpu", or the GPU's name: the kernels of another kind of device round otherwise.
        cpu: the instructions that torch's own CPU kernels use, such as "AVX2" or "AVX512".
    """

    device: str
    cpu: str

    @classmethod
    def here(cls, gpus: float) -> "Machine":
        """Look at the machine that this process runs on. Imports torch.

        Args:
            gpus: how many GPUs a network has; 0: it runs on the CPU.
        """
        import torch

        device = torch.cuda.get_device_name() if gpus else "cpu"
        return cls(device, torch.backends.cpu.get_cpu_capability())


@cache
def code(comparison: bool = False) -> dict[str, str]:
    """Return a hash of each source file that can change a row, by its path in the package.

    Args:
        comparison: the rows of a comparison instead of those of its run.
    """
    hashes = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        path = file.relative_to(PACKAGE)
        if not _lies_in(path, SHOWN) and _lies_in(path, COMPARED) == comparison:
            digest = hashlib.blake2b(file.read_bytes(), digest_size=4)
            hashes[path.as_posix()] = digest.hexdigest()
    return hashes


def _lies_in(path: PurePath, places: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(place) for place in places)


def identity(config: Config) -> dict[str, Any]:
    """Return what two runs must share for their rows to stand in one table, for JSON."""
    return {
        "config": config.identity,
        "code": code(),
        "versions": {name: metadata.version(name) for name in DECISIVE},
    }


def record(config: Config) -> dict[str, Any]:
    """Return the head of ``run.json``: ``identity``, the whole config, and what is good to know."""
    return {
        **identity(config),
        "config": config.model_dump(mode="json"),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in OTHERS},
        "git_commit": _git_commit(),
    }


def of(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``identity`` in a dict of ``record``'s."""
    config = {k: v for k, v in recorded.get("config", {}).items() if k not in NO_IDENTITY}
    return {"config": config, "code": recorded.get("code"), "versions": recorded.get("versions")}


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Name what differs of two nested dicts, a line per key: "config.split.seed: 0 there, 1 here".

    Args:
        there: of what is recorded.
        here: of what wants to go on with it.
    """
    a, b = dict(_flat(there)), dict(_flat(here))
    missing = object()

    def written(value: Any) -> str:
        return "nothing" if value is missing else repr(value)

    return [
        f"{key}: {written(a.get(key, missing))} there, {written(b.get(key, missing))} here"
        for key in sorted(a.keys() | b.keys())
        if a.get(key, missing) != b.get(key, missing)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested dicts under dotted keys; a tuple as the list that JSON has."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


def _git_commit() -> str | None:
    """Return the commit of the checkout that holds this package; None where there is none.

    An installed package may lie in a folder that the checkout of something else ignores.
    """
    try:
        done = subprocess.run(
            ["git", "-C", str(PACKAGE), "rev-parse", "HEAD", "HEAD:./__init__.py"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.split()[0]
