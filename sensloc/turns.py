"""Calls that take turns, so that what else a machine does falls on all of them alike."""

import time
from collections.abc import Callable, Iterable, Mapping
from statistics import median
from typing import Any


def medians(calls: Mapping[str, Callable[[], Any]], n: int, rounds: int) -> dict[str, float]:
    """Return the median milliseconds per item of calls that take turns over n items each.

    Args:
        calls: what is timed, by name.
        n: items that each call works on.
        rounds: that count; one before them does not.
    """
    seconds = turns(calls, range(rounds + 1))
    return {name: 1000 * median(values) / n for name, values in seconds.items()}


def turns(calls: Mapping[str, Callable[[], Any]], rounds: Iterable[Any]) -> dict[str, list[float]]:
    """Return the seconds of calls that take turns, by name: one for each round but the first."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in rounds:
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    return {name: values[1:] for name, values in seconds.items()}
