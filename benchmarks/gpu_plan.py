"""What is measured on a device, for how long, and a clock that waits for the device."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, TypeVar

import torch

from sensloc.networks.precision import Precision

AT_LEAST = 0.1
"""Seconds of what is timed at once: so many calls that a clock's and a launch's share is small."""

T = TypeVar("T")


@dataclass
class Plan:
    """What is measured, and what was left out.

    Attributes:
        device: "cuda" or "cpu".
        networks: Of ``benchmarks.passes``.
        batches: Images of a batch, tried in this order.
        rounds: In which ways take turns.
        precisions: The arithmetics.
        seconds: After which nothing more is begun.
        began: When the program did.
        left_out: What was not measured, and why.
    """

    device: str
    networks: Sequence[str]
    batches: Sequence[int]
    rounds: int
    precisions: Sequence[Precision]
    seconds: float
    began: float = field(default_factory=time.monotonic)
    left_out: dict[str, str] = field(default_factory=dict)

    def goes_on(self, what: str) -> bool:
        """Tell whether there is time for more; what there is none for is left out."""
        if (late := time.monotonic() - self.began > self.seconds) and what not in self.left_out:
            self.left_out[what] = f"no time: {self.seconds:.0f} s are over"
        return not late


def seconds_of(call: Callable[[], object], device: str) -> float:
    """Return how long a call takes until its results are there."""
    if device == "cpu":
        began = time.perf_counter()
        call()
        return time.perf_counter() - began
    event: Any = torch.cuda.Event
    first, last = event(enable_timing=True), event(enable_timing=True)
    first.record()
    call()
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last)) / 1000


def in_turn(calls: Mapping[T, Callable[[], object]], plan: Plan) -> dict[T, list[float]]:
    """Return the seconds of a call, by name, in each of the plan's rounds; all are warm."""
    repeats: dict[T, int] = {}
    for name, call in calls.items():
        call()
        warm = seconds_of(call, plan.device)
        repeats[name] = ceil(AT_LEAST / max(warm, 1e-6)) if plan.device == "cuda" else 1
    seconds: dict[T, list[float]] = {name: [] for name in calls}
    for _ in range(plan.rounds):
        for name, call in calls.items():
            several = lambda call=call, n=repeats[name]: [call() for _ in range(n)]  # noqa: E731
            seconds[name].append(seconds_of(several, plan.device) / repeats[name])
    return seconds
