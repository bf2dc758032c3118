"""HiResCAM (Draelos & Carin 2020): each activation times its own derivative, of either sign."""

from sensloc.heatmaps.passes import Options, Reading


def reading(options: Options, stride: int) -> Reading:
    """Read the sum over channels of activation times derivative at a stride."""
    return Reading(
        lambda passed: (passed.activation(stride) * passed.sensitivity(stride)).sum(1),
        taps=(stride,),
        signed=True,
    )
