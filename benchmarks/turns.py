"""Ways to do one thing, timed in turn: milliseconds per item, and the ratio of each to the first.

What else the machine does hits all ways alike, so that the ratios of one run can be believed where
its milliseconds are those of one machine on one day.
"""

import json
import multiprocessing
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

import sensloc
from sensloc.engine.cluster import KEEP_FREED_MEMORY, ONE_THREAD
from sensloc.report.text import Columns, Row, aligned, table_lines
from sensloc.turns import turns


@dataclass(frozen=True)
class Spread:
    """The median, the least and the greatest of some numbers."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of one or more numbers."""
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True)
class Timed:
    """One way's time.

    Attributes:
        way: Its name.
        milliseconds: Per item.
        ratio: To the first way's time in the same round.
    """

    way: str
    milliseconds: Spread
    ratio: Spread


def as_workers_run() -> None:
    """Start this program anew with the environment of the product's workers, if it lacks it."""
    wanted = KEEP_FREED_MEMORY | ONE_THREAD
    if not wanted.items() <= os.environ.items():
        os.execve(sys.executable, sys.orig_argv, os.environ | wanted)  # noqa: S606 - itself


@contextmanager
def apart(
    make: Callable[[], Callable[[], object]], without: Iterable[str]
) -> Iterator[Callable[[], None]]:
    """Have a process of its own do something whenever it is asked to, until the block ends.

    Args:
        make: Makes what is done, there. It can be pickled.
        without: Variables of the environment that it has not.

    Yields:
        What asks it, and returns when it is done.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    kept = {name: os.environ.pop(name) for name in without if name in os.environ}
    try:
        process = context.Process(target=_serve, args=(make, there))
        process.start()
    finally:
        os.environ.update(kept)
    there.close()

    def ask() -> None:
        here.send(None)
        here.recv()

    try:
        yield ask
    finally:
        here.close()
        process.join()


def _serve(make: Callable[[], Callable[[], object]], asked: Connection) -> None:
    """Do something each time that it is asked for, until nobody can."""
    call = make()
    with suppress(EOFError):
        while True:
            asked.recv()
            call()
            asked.send(None)


def in_turn(ways: Mapping[str, Callable[[], object]], items: int, rounds: int) -> list[Timed]:
    """Time ways that take turns.

    Args:
        ways: What is called, by name; each works on the same items.
        items: How many items a call works on.
        rounds: Those that count; one before them does not.
    """
    seconds = turns(ways, tqdm(range(rounds + 1), unit="round", leave=False))
    first = next(iter(seconds.values()))
    return [
        Timed(
            way,
            Spread.of([1000 * value / items for value in values]),
            Spread.of([value / base for value, base in zip(values, first, strict=True)]),
        )
        for way, values in seconds.items()
    ]


def spread(name: str, digits: int) -> Callable[[Row], str]:
    """Return what writes ``row[name]``, a ``Spread`` as a dict: "1.90 [1.85, 2.01]"."""

    def write(row: Row) -> str:
        value = row[name]
        low, high = (f"{value[bound]:,.{digits}f}" for bound in ("low", "high"))
        return f"{value['median']:,.{digits}f} [{low}, {high}]"

    return write


def table(heading: str, timed: Sequence[Timed]) -> str:
    """Return ways and their times for a terminal.

    Args:
        heading: What is done, and under which conditions.
        timed: The ways; the ratios are to the first.
    """
    columns: Columns = {
        heading: lambda row: row["way"],
        "ms per item": spread("milliseconds", 2),
        f"x {timed[0].way}": spread("ratio", 2),
    }
    return aligned(table_lines(columns, map(asdict, timed)))


def conditions() -> dict[str, Any]:
    """Return what the times depend on beside the code."""
    return {
        "sensloc": sensloc.__version__,
        "torch": torch.__version__,
        "cpu": platform.processor() or platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def save(file: Path, **content: Any) -> str:
    """Write a benchmark's results and conditions as JSON, and return the line that says where."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(conditions() | content, indent=2))
    return f"saved: {file}"
