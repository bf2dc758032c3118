"""Actors between two stages: their processes have started, and imported torch, once.

Idle actors hold their CPUs and GPUs. A run's tasks of ``cpus_per_task`` fit beside them, as they do
beside a pool at work; what asks for more, or for a GPU, makes room first.
"""

from typing import Any

_idle: dict[tuple[float, float], list[Any]] = {}
"""By their CPUs and GPUs."""

_beside = 0.0
"""CPUs of a task that fits beside them."""


def take(cpus: float, gpus: float) -> Any | None:
    """Return an idle actor of so many CPUs and GPUs; or None, and those of other sizes are gone."""
    if waiting := _idle.get((cpus, gpus)):
        return waiting.pop()
    make_room()
    return None


def leave(actor: Any, cpus: float, gpus: float, beside: float) -> None:
    """Let an actor wait for its next work; tasks of so many CPUs fit beside it."""
    global _beside
    _beside = beside
    _idle.setdefault((cpus, gpus), []).append(actor)


def make_room_for(cpus: float, gpus: float) -> None:
    """Stop all idle actors, if a task of so many CPUs and GPUs may not fit beside them."""
    if gpus or cpus > _beside:
        make_room()


def make_room() -> None:
    """Stop all idle actors."""
    for actor in [actor for waiting in _idle.values() for actor in waiting]:
        actor.__ray_terminate__.remote()  # unlike ray.kill, it sends its last metrics
    forget()


def forget() -> None:
    """Know of no idle actors: those of a Ray that is left are gone."""
    _idle.clear()
