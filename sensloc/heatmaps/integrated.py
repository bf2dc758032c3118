"""Integrated Gradients (Sundararajan et al. 2017), from the mean colour to the image."""

import torch
from torch import Tensor

from sensloc.heatmaps.gradient import over_channels
from sensloc.heatmaps.passes import Options, Pass, Reading
from sensloc.heatmaps.smoothgrad import mean_gradient


def reading(options: Options) -> Reading:
    """Read the attributions' absolute values, one number per pixel."""
    return Reading(
        lambda passed: over_channels(integrated_gradients(passed, options), options.channels)
    )


def integrated_gradients(passed: Pass, options: Options) -> Tensor:
    """Return the image times the mean gradient on the straight way to it: float32 [n, 3, S, S].

    The way begins at the mean colour, which is 0 after normalisation, so that it is ``a * x``; it
    is read at the midpoints of ``options.steps`` equal parts.
    """
    x, steps = passed.images, options.steps
    shares = (torch.arange(steps) + 0.5) / steps
    return (x * mean_gradient(passed, [share * x for share in shares.tolist()])).float()
