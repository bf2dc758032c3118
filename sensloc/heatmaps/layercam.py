"""LayerCAM (Jiang et al., TIP 2021): each activation weighted by its own positive derivative."""

from sensloc.heatmaps.passes import Options, Reading


def reading(options: Options, stride: int) -> Reading:
    """Read the sum over channels of activation times positive derivative, its positive part."""
    return Reading(
        lambda passed: (
            (passed.activation(stride) * passed.sensitivity(stride).clamp(min=0))
            .sum(1)
            .clamp(min=0)
        ),
        taps=(stride,),
    )
