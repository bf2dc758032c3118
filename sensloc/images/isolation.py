"""Calls that may kill their process, each in a child: no image costs its neighbours."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from sensloc.images.fetch import ImageError

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result | None]:
    """Call a function with each item in a child process, one after the other.

    Args:
        function: A function that a child can import; what it raises is raised here.
        items: Values that can be sent to a child.

    Returns:
        The result for each item, or None where it killed the child; the next item has a new one.
    """
    results: list[Result | None] = []
    while len(results) < len(items):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
            for item in items[len(results) :]:
                try:
                    results.append(child.submit(function, item).result())
                except BrokenProcessPool:
                    results.append(None)
                    break
    return results


def images(
    read: Callable[[Sequence[Item]], list[Result | ImageError]],
    items: Sequence[Item],
    uris: Sequence[str],
) -> list[Result | ImageError]:
    """Read images, each in a child process: one that kills its process is an error too.

    Args:
        read: Gives an image or an error for each item; a child can import it.
        items: What is known of the images, such as their URIs; it can be sent to a child.
        uris: Of the images, to name them in errors.

    Returns:
        What ``read`` gave for each item, or the error that it killed its process.
    """
    results = each(read, [[item] for item in items])
    return [
        ImageError(f"{uri}: killed the process that decoded it") if result is None else result[0]
        for uri, result in zip(uris, results, strict=True)
    ]
