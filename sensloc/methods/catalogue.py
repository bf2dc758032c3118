"""Every row of the comparison: its name, and what it reads.

A method is one of a few kinds: a constant box, a linear map from some columns, a threshold or
the central mass of one, or a choice among an image's proposals.
"""

from collections.abc import Iterable, Mapping

LINEAR: Mapping[str, tuple[str, ...]] = {
    "sensitivity": ("map",),
    "smoothgrad": ("map_smoothgrad",),
    "integrated_gradients": ("map_integrated",),
    "cam_linear": ("map_cam",),
    "sensitivity_cam": ("map", "map_cam"),
    "random_network": ("map_random",),
    "permuted_map": ("map_permuted",),
    "pooled_image": ("image",),
    "perfect_mask": ("map_mask",),
}
"""Through a linear map; each also calibrated, as ``<name>_calibrated``."""

THRESHOLD: Mapping[str, str] = {
    "gradient_threshold": "map",
    "cam_threshold": "map_cam",
    "gradcam_threshold": "map_gradcam",
}
"""The largest region above a threshold."""

MASS: Mapping[str, str] = {"gradient_mass": "map"}
"""Between quantiles of the mass along each axis."""

COLOCALIZATION: Mapping[str, str] = {
    "colocalization_cnn": "box_features",
    "colocalization_sift": "",
}
"""One proposal of each image of a class, by what they have in common."""

PROPOSALS = ("objectness", "proposal_random", "proposal_best", *COLOCALIZATION)
"""A box among the objectness measure's."""

CALIBRATED = "_calibrated"

TITLES: Mapping[str, str] = {
    "constant_mean": "centre box of mean size",
    "constant_tuned": "constant box, tuned on train",
    "constant_class": "mean box of the class",
    "objectness": "top objectness box",
    "colocalization_sift": "co-localization, dense SIFT",
    "colocalization_cnn": "co-localization, network features",
    "proposal_random": "floor: any of the proposals",
    "proposal_best": "ceiling: the best of the proposals",
    "sensitivity": "sensitivity map, linear map",
    "smoothgrad": "SmoothGrad, linear map",
    "integrated_gradients": "Integrated Gradients, linear map",
    "gradient_threshold": "sensitivity map, threshold",
    "gradient_mass": "sensitivity map, central mass",
    "cam_threshold": "CAM, threshold",
    "gradcam_threshold": "Grad-CAM, threshold",
    "cam_linear": "CAM, linear map",
    "sensitivity_cam": "sensitivity map and CAM, linear map",
    "random_network": "control: random network's map",
    "permuted_map": "control: another image's map",
    "pooled_image": "control: the pooled image",
    "perfect_mask": "ceiling: the true box as a map",
}
"""What each is, in a few words; a linear map's calibrated twin adds ", calibrated"."""

KNOWS_CLASS = frozenset(
    {
        "constant_class",
        *COLOCALIZATION,
    }
)
"""Told the image's class, whatever ``sensitivity.label`` says."""

READS_TRUTH = frozenset({"proposal_best", "perfect_mask"})
"""Ceilings: they read the test image's own box."""


def wants_proposals(methods: Iterable[str]) -> bool:
    """Does any of them choose a box among proposals?"""
    return any(name in PROPOSALS for name in methods)


def base(name: str) -> str:
    """The name without its calibration."""
    return name.removesuffix(CALIBRATED)


def title(name: str) -> str:
    """What a row of the table is."""
    return TITLES[base(name)] + (", calibrated" if name.endswith(CALIBRATED) else "")


def columns(methods: Iterable[str]) -> set[str]:
    """What the methods read of the table ``compare/maps``, its boxes and labels aside."""
    single = {**THRESHOLD, **MASS, **COLOCALIZATION}
    read = {column for name in methods for column in LINEAR.get(name, (single.get(name, ""),))}
    return read - {""}


# --------------------------------------------------------------------------- the reports

MAIN = "sensitivity"
"""The paper's method: every other is compared with it, and the report begins with it."""

PREDICTS = MAIN + CALIBRATED
"""The method by which a finished run predicts the boxes of other images."""

TUNED_BOX = "constant_tuned"
"""The best box that looks at no image: the report names it beside the paper's method."""

PAPER: Mapping[str, float] = {
    "constant_mean": 12.34,
    "objectness": 37.42,
    "colocalization_sift": 53.20,
    "sensitivity": 82.76,
}
"""CorLoc in percent, of Ebrahimpour & Noelle, Table 1: on their images, by their protocol."""

CONTROLS = frozenset({"proposal_random", "random_network", "permuted_map", "pooled_image"})
"""Floors and controls: no system that anyone would choose for its speed."""

DRAWN = frozenset(
    {
        *("constant_tuned", "objectness", "colocalization_cnn", "sensitivity"),
        *("sensitivity_calibrated", "cam_threshold", "sensitivity_cam", "perfect_mask"),
    }
)
"""The methods that charts draw where there are more than can be told apart."""
