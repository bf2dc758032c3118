"""Actors between two stages: their processes have started, and imported torch, once.

Idle actors hold their CPUs and GPUs. What asks for a whole CPU, or for a GPU, makes room first;
other tasks fit beside them, since pools leave 2 * ``cpus_per_task`` to them.
"""

from typing import Any

_idle: dict[tuple[float, float], list[Any]] = {}
"""By their CPUs and GPUs."""


def take(cpus: float, gpus: float) -> Any | None:
    """Return an idle actor of so many CPUs and GPUs; or None, and those of other sizes are gone."""
    if waiting := _idle.get((cpus, gpus)):
        return waiting.pop()
    make_room()
    return None


def leave(actor: Any, cpus: float, gpus: float) -> None:
    """Let an actor wait for its next work."""
    _idle.setdefault((cpus, gpus), []).append(actor)


def make_room() -> None:
    """Stop all idle actors."""
    for actor in [actor for waiting in _idle.values() for actor in waiting]:
        actor.__ray_terminate__.remote()  # unlike ray.kill, it sends its last metrics
    forget()


def forget() -> None:
    """Know of no idle actors: those of a Ray that is left are gone."""
    _idle.clear()
