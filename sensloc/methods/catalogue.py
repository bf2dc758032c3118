"""Every method of the run and of the comparison, each named in one line of ``METHODS``.

A line says of which kind the method is, which columns it reads, what it is called, and what it is
told beside the image. Config, fit, comparison, timing and report take names and titles from here.
The columns are those of the table ``compare/maps``: ``map`` is the run's own, ``map_<reading>``
another heat map of the same image.
"""

from collections.abc import Collection, Iterable, Mapping

from sensloc import heatmaps
from sensloc.methods.entries import (
    ClassMean,
    Colocalization,
    Constant,
    Entry,
    Linear,
    Mass,
    Proposal,
    SoftIoU,
    Threshold,
)

CALIBRATED = "_calibrated"
"""The end of the name of a linear map's calibrated twin."""

GIVEN = "given_"
"""The beginning of the name of a method whose heat map others made."""

GIVEN_WAYS = ("threshold", "mass", "soft_iou", "linear")
"""The ends of such names: how a box is got from the map."""

BY_PREDICTED = "_predicted"
"""The end of a method's name where its maps are of the predicted class, beside the true one's."""

MEAN_BOX, TUNED_BOX = "constant_mean", "constant_tuned"
"""The run's own baselines."""

MAIN = "sensitivity"
"""The paper's method: the others are compared with it."""

FOREGROUND, SECOND_LOOK = "foreground", "foreground_second"
"""The boxes of the learned foreground map, and of that of a second look."""

CALIBRATED_MAIN = MAIN + CALIBRATED
"""The paper's method, its boxes resized."""

FOREGROUNDS = (FOREGROUND, SECOND_LOOK)

PREDICTING = (MAIN, CALIBRATED_MAIN, *FOREGROUNDS)
"""The methods of a run that need nothing but heat maps, and may predict other images' boxes."""

NAMED: Mapping[str, Entry] = {
    MEAN_BOX: Constant(title="centre box of mean size", in_run=True, paper=12.34),
    TUNED_BOX: Constant(title="constant box, tuned on train", in_run=True, drawn=True),
    "constant_class": ClassMean(title="mean box of the class", told="class"),
    "objectness": Proposal("first", title="top objectness box", paper=37.42, drawn=True),
    "colocalization_cnn": Colocalization(
        "box_features", title="co-localization, network features", told="class"
    ),
    "colocalization_sift": Colocalization(
        "box_words", title="co-localization, dense SIFT", told="class", paper=53.20
    ),
    "proposal_random": Proposal("random", title="floor: any of the proposals", control=True),
    "proposal_best": Proposal("best", title="ceiling: the best of the proposals", told="truth"),
    MAIN: Linear(
        ("map",), title="sensitivity map, linear map", in_run=True, paper=82.76, drawn=True
    ),
    FOREGROUND: SoftIoU(
        "map_foreground", title="foreground, soft IoU (not the paper's)", in_run=True, drawn=True
    ),
    SECOND_LOOK: SoftIoU(
        heatmaps.column(heatmaps.SECOND),
        part=True,
        title="foreground, second look, soft IoU (not the paper's)",
        in_run=True,
        drawn=True,
    ),
    "foreground_linear": Linear(("map_foreground",), title="foreground, linear map"),
    "foreground_forward": SoftIoU(
        "map_foreground_forward", title="foreground by the forward pass only, soft IoU"
    ),
    "foreground_sensitivities": SoftIoU(
        "map_foreground_sensitivities", title="foreground by sensitivities only, soft IoU"
    ),
    "gradient_threshold": Threshold("map", title="sensitivity map, threshold"),
    "gradient_mass": Mass("map", title="sensitivity map, central mass"),
    "cam_threshold": Threshold("map_cam", title="CAM, threshold", drawn=True),
    "gradcam_threshold": Threshold("map_gradcam", title="Grad-CAM, threshold"),
    "smoothgrad": Linear(("map_smoothgrad",), title="SmoothGrad, linear map"),
    "integrated_gradients": Linear(("map_integrated",), title="Integrated Gradients, linear map"),
    "cam_linear": Linear(("map_cam",), title="CAM, linear map"),
    "sensitivity_cam": Linear(("map", "map_cam"), title="sensitivity map and CAM, linear map"),
    "random_network": Linear(("map_random",), title="control: random network's map", control=True),
    "permuted_map": Linear(("map_permuted",), title="control: another image's map", control=True),
    "pooled_image": Linear(("image",), title="control: the pooled image", control=True),
    "perfect_mask": Linear(
        ("map_mask",), title="ceiling: the true box as a map", told="truth", drawn=True
    ),
}
"""The methods of a comparison that names none, in the order of the tables."""


def _of_heat_map(name: str) -> dict[str, Entry]:
    """Return the methods that any heat map has."""
    title, at = heatmaps.title(name), heatmaps.column(name)
    return {
        f"{name}_threshold": Threshold(at, title=f"{title}, threshold"),
        f"{name}_mass": Mass(at, title=f"{title}, central mass"),
        f"{name}_linear": Linear((at,), title=f"{title}, linear map"),
    }


_TAKEN = {(type(line), line.columns) for line in NAMED.values()}

METHODS: Mapping[str, Entry] = {
    **{
        name: line
        for heat_map in heatmaps.names()
        for name, line in _of_heat_map(heat_map).items()
        if (type(line), line.columns) not in _TAKEN
    },
    **NAMED,
}
"""Every method that a comparison can have, by name: those of all heat maps too."""


def of_given(name: str) -> dict[str, Entry]:
    """Return the methods of a heat map that others made, by its name in ``compare.maps``."""
    at, title = heatmaps.given(name), f"{name} (given)"
    lines = (
        Threshold(at, title=f"{title}, threshold"),
        Mass(at, title=f"{title}, central mass"),
        SoftIoU(at, title=f"{title}, soft IoU"),
        Linear((at,), title=f"{title}, linear map"),
    )
    return {f"{GIVEN}{name}_{way}": line for way, line in zip(GIVEN_WAYS, lines, strict=True)}


def is_given(name: str) -> bool:
    """Return whether a method reads a heat map that others made."""
    return name.startswith(GIVEN)


def base(name: str) -> str:
    """Return the name without its calibration, and whatever class its maps are of."""
    return name.removesuffix(BY_PREDICTED).removesuffix(CALIBRATED)


def entry(name: str) -> Entry:
    """Return the line of a method, or of the method whose calibrated twin it is."""
    name = base(name)
    if not is_given(name):
        return METHODS[name]
    way = next(way for way in GIVEN_WAYS if name.endswith(f"_{way}"))
    return of_given(name.removeprefix(GIVEN).removesuffix(f"_{way}"))[name]


def title(name: str) -> str:
    """Return what a row of the table is, in a few words."""
    own = name.removesuffix(BY_PREDICTED)
    calibrated = ", calibrated" if own.endswith(CALIBRATED) else ""
    return ("predicted class: " if own != name else "") + entry(own).title + calibrated


def with_twins(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names, each linear map's followed by that of its calibrated twin."""
    twins = ([name, name + CALIBRATED] if _has_twin(name) else [name] for name in names)
    return tuple(name for pair in twins for name in pair)


def _has_twin(name: str) -> bool:
    return isinstance(entry(name), Linear)


def of_run(maps: Collection[str]) -> tuple[str, ...]:
    """Return the methods that a run with these heat maps fits itself, in its table's order."""
    made = {heatmaps.column(name) for name in maps}
    own = (name for name, line in NAMED.items() if line.in_run and made >= set(line.columns))
    return with_twins(own)


DRAWN = frozenset({CALIBRATED_MAIN, *(name for name, line in NAMED.items() if line.drawn)})
"""The methods that the report draws even where there are too many to tell apart."""

CONTROLS = frozenset(name for name, line in METHODS.items() if line.control)
"""Floors and controls."""

PAPER = {name: line.paper for name, line in METHODS.items() if line.paper is not None}
"""CorLoc in percent, of Ebrahimpour & Noelle, Table 1: on their images, by their protocol."""


def columns(names: Iterable[str]) -> set[str]:
    """Return what the methods read of ``compare/maps``, boxes, proposals and labels aside."""
    return {column for name in names for column in entry(name).columns}


def colocalizations(names: Iterable[str]) -> dict[str, str]:
    """Return the methods among these that co-localize, and by what they describe a box."""
    lines = {name: entry(name) for name in names}
    return {k: line.described_by for k, line in lines.items() if isinstance(line, Colocalization)}


def thresholds(names: Iterable[str]) -> dict[str, str]:
    """Return the methods among these that threshold a heat map, and the column of that map."""
    lines = {name: entry(name) for name in names}
    return {name: line.column for name, line in lines.items() if isinstance(line, Threshold)}


def wants_proposals(names: Iterable[str]) -> bool:
    """Return whether any of the methods chooses a box among proposals."""
    return any(isinstance(entry(name), Proposal | Colocalization) for name in names)
