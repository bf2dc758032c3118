"""The activations themselves: no map, but what the foreground's read-out reads of each cell."""

import torch
from torch import Tensor

from sensloc.heatmaps.passes import Options, Reading
from sensloc.networks.taps import Tap

MOST = 512
"""Channels of a place at most; more are mixed down to so many by a fixed random map, which keeps
sums of squares and products nearly (Johnson & Lindenstrauss 1984)."""


def reading(options: Options, place: Tap) -> Reading:
    """Read the activations at a stride, or at a module: [n, C, h, w], C at most ``MOST``."""
    return Reading(lambda passed: mixed(passed.activation(place)), taps=(place,), backward=False)


def mixed(activations: Tensor) -> Tensor:
    """Return activations [n, C, h, w] of at most ``MOST`` channels."""
    channels = activations.shape[1]
    if channels <= MOST:
        return activations
    dice = torch.Generator().manual_seed(channels)
    mix = torch.randn(MOST, channels, generator=dice) / MOST**0.5
    return torch.einsum("kc,nchw->nkhw", mix.to(activations.device), activations)
