"""Calls that may kill their process, each in a child: one image never costs its neighbours."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from sensloc.images.fetch import ImageError

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result | None]:
    """``function`` of each item in a child process, one after the other.

    Args:
        function: that a child can import; what it raises is raised here.
        items: that can be sent to a child.

    Returns:
        For each item its result, or None where it killed the child; the next has a new one.
    """
    found: list[Result | None] = []
    while len(found) < len(items):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
            for item in items[len(found) :]:
                try:
                    found.append(child.submit(function, item).result())
                except BrokenProcessPool:
                    found.append(None)
                    break
    return found


def images(
    read: Callable[[Sequence[Item]], list[Result | ImageError]],
    items: Sequence[Item],
    uris: Sequence[str],
) -> list[Result | ImageError]:
    """``read(items)``, each item in a child process: one that kills it is an error too.

    Args:
        read: gives something or an error for each item; a child can import it.
        items: that can be sent to a child.
        uris: of the items, to name them.
    """
    found = each(read, [[item] for item in items])
    return [
        ImageError(f"{uri}: killed the process that decoded it") if one is None else one[0]
        for uri, one in zip(uris, found, strict=True)
    ]
