"""A control: the paper's heat map of the same architecture with random weights."""

from dataclasses import replace

from sensloc.heatmaps import gradient
from sensloc.heatmaps.passes import Options, Reading


def reading(options: Options) -> Reading:
    """Read |d score / d pixel| of a network that has learned nothing."""
    return replace(gradient.reading(options), random=True)
