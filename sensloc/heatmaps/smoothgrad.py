"""SmoothGrad (Smilkov et al. 2017): the mean gradient over noisy copies of each image."""

from functools import reduce

import torch
from torch import Tensor

from sensloc.heatmaps.gradient import over_channels
from sensloc.heatmaps.passes import Options, Pass, Reading, look
from sensloc.networks.taps import PIXELS


def reading(options: Options) -> Reading:
    """Read the mean derivative over ``options.samples`` noisy copies, one number per pixel."""
    return Reading(lambda passed: over_channels(smooth_gradient(passed, options), options.channels))


def smooth_gradient(passed: Pass, options: Options) -> Tensor:
    """Return the mean gradient over noisy copies of the pass's images: float32 [n, 3, S, S].

    Every image meets the same noise, scaled to its own range: its map does not depend on its
    neighbours in the batch.
    """
    x = passed.images
    span = x.amax((1, 2, 3), keepdim=True) - x.amin((1, 2, 3), keepdim=True)
    dice = torch.Generator().manual_seed(options.seed)
    noise = torch.randn(options.samples, *x.shape[1:], generator=dice).to(x.device)
    return mean_gradient(passed, [x + options.level * span * sample for sample in noise])


def mean_gradient(passed: Pass, versions: list[Tensor]) -> Tensor:
    """Return the mean over versions of a batch of the gradient of the pass's class scores.

    Args:
        passed: Names the network and the classes.
        versions: Normalised pixels, k times [n, 3, S, S].

    Returns:
        float32 [n, 3, S, S].
    """
    gradients = (look(passed.prepared, x, passed.labels).sensitivity(PIXELS) for x in versions)
    return reduce(torch.add, gradients) / len(versions)
