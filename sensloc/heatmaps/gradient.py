"""The paper's heat map: how much each pixel moves the class score.

Ebrahimpour & Noelle, eq. 1, after Simonyan et al. 2014: ``s = d score / d x`` from one backward
pass to the pixels, in absolute value. Only the pixels receive a gradient: the network is frozen.
"""

from torch import Tensor

from sensloc.heatmaps.passes import Options, Reading
from sensloc.networks.taps import PIXELS


def reading(options: Options) -> Reading:
    """Read |d score / d pixel|, one number per pixel."""
    return Reading(
        lambda passed: over_channels(passed.sensitivity(PIXELS), options.channels), taps=(PIXELS,)
    )


def over_channels(gradient: Tensor, channels: str) -> Tensor:
    """Return one non-negative number per place: [n, C, h, w] -> [n, h, w].

    Args:
        gradient: Of either sign.
        channels: "max" (Simonyan et al.), "l2" or "sum" of the absolute values.
    """
    if channels == "max":
        return gradient.abs().amax(1)
    if channels == "l2":
        return (gradient * gradient).sum(1).sqrt()
    return gradient.abs().sum(1)
