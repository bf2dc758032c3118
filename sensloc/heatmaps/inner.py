"""The paper's eq. 1 at an inner layer: how much each of its units moves the class score."""

from sensloc.heatmaps.passes import Options, Reading


def reading(options: Options, stride: int) -> Reading:
    """Read the sum over channels of |d score / d activation| at a stride."""
    return Reading(lambda passed: passed.sensitivity(stride).abs().sum(1), taps=(stride,))
