"""Actors that each hold one worker: as many as there is room for, more as machines come.

An actor is made without arguments and gets them with each call. So nothing that it needs to start
again on another machine can be lost, and what hinders a worker is the error of a call, said once.

An actor has a few calls at a time, each in a thread of its own: a worker says what only one of them
may do at once, and the others' data comes and goes meanwhile.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import ray
from ray.exceptions import RaySystemError

from sensloc.engine import cluster, idle
from sensloc.store.run import RunDir

CALLS = 3
"""Calls that an actor has at a time at most: one at work, one before it and one behind."""

EVERY = 2.0
"""Seconds between two looks at how large the cluster is."""

T = TypeVar("T")


class Holder:
    """The actor: it makes a pool's worker when it is taken or first called, and keeps it."""

    def __init__(self) -> None:
        self.worker: Callable[..., Any] | None = None
        self.made_by: Any = None
        self.making = threading.Lock()

    def work(self, make: Sequence[Any], *inputs: Any) -> Any:
        """Call the worker.

        Args:
            make: The reference, in a list, of the function that makes the worker.
            inputs: The worker's arguments.
        """
        return self._worker_of(make)(*inputs)

    def prepare(self, make: Sequence[Any]) -> None:
        """Make the worker while its first input is on its way; what hinders it, its call says."""
        with suppress(Exception):
            self._worker_of(make)

    def _worker_of(self, make: Sequence[Any]) -> Callable[..., Any]:
        with self.making:
            if self.worker is None or self.made_by != make[0]:
                self.worker = None  # another pool's
                self.worker, self.made_by = ray.get(make[0])(), make[0]
            return self.worker

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Return ``function(*args)``; no worker is made meanwhile."""
        with self.making:
            return function(*args)

    def rehearse(self, function: Callable[..., T], *args: Any) -> None:
        """Call a function for what it imports and reads; what hinders it, another actor says."""
        with suppress(Exception):
            self.call(function, *args)


def actor_of(cpus: float, gpus: float) -> Any:
    """Return an actor that is idle, or a new one."""
    if (actor := idle.take(cpus, gpus)) is not None:
        return actor
    kind: Any = ray.remote(
        num_cpus=cpus,
        num_gpus=gpus,
        max_restarts=-1,
        scheduling_strategy="SPREAD",
    )(Holder)
    return kind.options(max_concurrency=CALLS).remote()


def called(
    function: Callable[..., T],
    *args: Any,
    cpus: float,
    gpus: float,
    beside: float = 0.0,
    actors: int = 1,
) -> T:
    """Return ``function(*args)``, called by actors that a pool may have afterwards.

    The first one's is returned. The others rehearse it: they import and read meanwhile what it
    takes.

    Args:
        function: What is called.
        args: Its arguments.
        cpus: Of the actor.
        gpus: Of the actor.
        beside: CPUs of a task that fits beside it.
        actors: So many call it.
    """
    first, *others = calling = [actor_of(cpus, gpus) for _ in range(actors)]
    try:
        for actor in others:
            actor.rehearse.remote(function, *args)
        value: T = cluster.result(_with_retries(first.call).remote(function, *args))
    finally:
        for actor in calling:
            idle.leave(actor, cpus, gpus, beside)
    return value


def by_actor(run: RunDir, function: Callable[..., T], *args: Any, units: int = 1) -> T:
    """Return ``function(run, *args)``, called where the run's network will be.

    Args:
        run: The run.
        function: What is called.
        args: Its further arguments.
        units: Of the work that follows: as many actors call it as this will have.
    """
    resources = run.config.resources
    cpus, gpus = resources.cpus_per_actor, resources.gpus_per_actor
    room = cluster.room(cpus, gpus, resources.spare)
    return called(
        function,
        run,
        *args,
        cpus=cpus,
        gpus=gpus,
        beside=resources.cpus_per_task,
        actors=max(1, min(resources.actors, units, room)),
    )


def _with_retries(method: Any) -> Any:
    return method.options(max_task_retries=cluster.RETRIES, retry_exceptions=[RaySystemError])


class Pool:
    """Actors that are called in turn; the pool grows and shrinks with the cluster.

    Args:
        make: Makes the worker in each actor.
        most: Actors at most.
        cpus: Of an actor.
        gpus: Of an actor.
        spare: CPUs that are left to others: to two tasks at least.
        calls: Calls that an actor has at a time, at most ``CALLS``.
    """

    def __init__(
        self,
        make: Callable[[], Callable[..., Any]],
        most: int,
        cpus: float,
        gpus: float = 0.0,
        spare: float = 0.0,
        calls: int = 1,
    ) -> None:
        self.most, self.cpus, self.gpus, self.spare, self.calls = most, cpus, gpus, spare, calls
        self.make = [ray.put(make)]  # in a list: a reference, read once by each actor
        self.working: dict[Any, int] = {}
        """Calls of each actor."""
        self.pending: dict[Any, Any] = {}
        """The actor of each call."""
        self.asked = False
        self.looked = -EVERY

    def resize(self, waiting: int) -> None:
        """Start and stop actors, so that there is one for each place and no more than work.

        Args:
            waiting: Units that no actor has yet.
        """
        if waiting and time.monotonic() - self.looked < EVERY:
            return
        self.looked = time.monotonic()
        room = min(self.most, cluster.room(self.cpus, self.gpus, self.spare))
        target = min(room, waiting + len(self.pending))
        more = target - len(self.working)
        for _ in range(more):
            actor = actor_of(self.cpus, self.gpus)
            actor.prepare.remote(self.make)
            self.working[actor] = 0
        if more > 0:
            wanted = min(self.most, waiting, 2 * len(self.working))
            self._ask_for_room(wanted if wanted > len(self.working) else 0)
        free = [actor for actor, calls in self.working.items() if calls == 0]
        for actor in free[: max(0, -more)]:
            del self.working[actor]
            idle.leave(actor, self.cpus, self.gpus, self.spare / 2)
        if cluster.elastic() and more < 0:
            idle.make_room()  # so that machines without work can go

    def _ask_for_room(self, actors: int) -> None:
        """Let an autoscaler make room for so many actors in all; 0 withdraws what was asked."""
        if actors or self.asked:
            needs = {"CPU": self.cpus, "GPU": self.gpus}
            cluster.ask_for([{name: n for name, n in needs.items() if n}] * actors)
        self.asked = actors > 0

    @property
    def free(self) -> bool:
        """Whether an actor can take one more call."""
        return any(calls < self.calls for calls in self.working.values())

    def submit(self, *inputs: Any) -> None:
        """Call the actor that has the fewest calls."""
        actor = min(self.working, key=self.working.__getitem__)
        self.pending[_with_retries(actor.work).remote(self.make, *inputs)] = actor
        self.working[actor] += 1

    def take(self, reference: Any) -> Any:
        """Return the result of a call that is done; its actor is free for another."""
        self.working[self.pending.pop(reference)] -= 1
        return cluster.result(reference)

    def close(self) -> None:
        """Let the actors wait for other work, and withdraw what was asked for."""
        for actor, calls in self.working.items():
            if calls:
                ray.kill(actor)
            else:
                idle.leave(actor, self.cpus, self.gpus, self.spare / 2)
        self._ask_for_room(0)
        self.working.clear()
        self.pending.clear()
