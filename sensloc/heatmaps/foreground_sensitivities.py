"""The paper's idea taken to its end: the foreground by sensitivities alone, of every layer.

The paper's equation 1 for the pixels, and for each unit of the inner layers; nothing else is read.
"""

from collections.abc import Sequence

from sensloc.heatmaps import MAIN, kind_and_stride
from sensloc.heatmaps.foreground import reading_of
from sensloc.heatmaps.passes import Options, Reading


def blocks(of_run: Sequence[str]) -> tuple[str, ...]:
    """Return what is read: the pixels' sensitivities, and the inner ones among the run's blocks."""
    return (MAIN, *(name for name in of_run if kind_and_stride(name)[0] == "inner"))


def reading(options: Options) -> Reading:
    """Read the shares by what the sensitivities say alone."""
    return reading_of("foreground_sensitivities", options)
