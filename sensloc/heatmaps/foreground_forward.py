"""A control: the foreground without a backward pass, so without any sensitivity."""

from collections.abc import Sequence

from sensloc.heatmaps import maker
from sensloc.heatmaps.foreground import reading_of
from sensloc.heatmaps.passes import Options, Reading


def blocks(of_run: Sequence[str]) -> tuple[str, ...]:
    """Return what is read: those of the run's blocks that need no derivative."""
    return tuple(name for name in of_run if not maker.reading(name, Options()).backward)


def reading(options: Options) -> Reading:
    """Read the shares by what the activations say alone."""
    return reading_of("foreground_forward", options)
