"""Every method of the run and of the comparison, each named in one line of ``METHODS``.

A line says of which kind the method is, which columns it reads, what it is called, and what it is
told beside the image. Config, fit, comparison, timing and report take names and titles from here.
The columns are those of the table ``compare/maps``: ``map`` is the run's own, ``map_<reading>``
another heat map of the same image.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from sensloc import heatmaps

CALIBRATED = "_calibrated"
"""The end of the name of a linear map's calibrated twin."""

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

PROPOSALS_WORK = frozenset({"decode_small", "proposals"})
SAME_WORK: Mapping[str, str] = {"map_random": "map", "map_permuted": "map"}
"""Columns that take as long to make as another one, which is timed in their place."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of the catalogue.

    Attributes:
        title: What the method is, in a few words.
        told: What it knows beside the image: its class, or its true boxes (a ceiling); None:
            neither, whatever ``sensitivity.label`` says.
        control: It is a floor or a control, no system that anyone would choose for its speed.
        in_run: The run itself fits it, on all of its train images; the comparison does not.
        paper: The CorLoc of the paper's Table 1, in percent, where it reports the method.
        drawn: The report draws it even where there are too many methods to tell apart.
    """

    title: str
    told: Literal["class", "truth"] | None = None
    control: bool = False
    in_run: bool = False
    paper: float | None = None
    drawn: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of ``compare/maps`` that it reads, proposals and labels aside."""
        return ()

    @property
    def work(self) -> frozenset[str]:
        """The parts of the timing that make what it reads, from the bytes of the image's file."""
        if self.told == "truth" or not self.columns:
            return frozenset()
        return frozenset({"decode", *(SAME_WORK.get(name, name) for name in self.columns)})


@dataclass(frozen=True)
class Constant(Entry):
    """The same box for every image."""


@dataclass(frozen=True)
class ClassMean(Entry):
    """The same box for every image of a class."""


@dataclass(frozen=True)
class Linear(Entry):
    """A linear map of one heat map or several side by side; its calibrated twin follows it."""

    maps: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the heat maps."""
        return self.maps


@dataclass(frozen=True)
class OfOneMap(Entry):
    """A box straight from a heat map, by one number that is chosen on validation."""

    column: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of the heat map."""
        return (self.column,)


@dataclass(frozen=True)
class Threshold(OfOneMap):
    """The largest region of a heat map above a threshold."""


@dataclass(frozen=True)
class SoftIoU(OfOneMap):
    """The box of highest soft IoU with a heat map of shares."""

    part: bool = False
    """Whether the map shows a part of the image, of a second look."""


@dataclass(frozen=True)
class Mass(OfOneMap):
    """The box between two quantiles of a heat map's mass along each axis."""


@dataclass(frozen=True)
class Proposal(Entry):
    """A box among the objectness measure's: the first, a random one, or the best."""

    which: Literal["first", "random", "best"]

    @property
    def work(self) -> frozenset[str]:
        """The parts of the timing that make the proposals."""
        return PROPOSALS_WORK


@dataclass(frozen=True)
class Colocalization(Entry):
    """The proposal that has most in common with those of the other images of its class."""

    described_by: Literal["box_features", "box_words"]
    """By the network's features, a column of ``compare/maps``, or by words of dense SIFT."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of the boxes' features; words are made anew."""
        return ("box_features",) if self.described_by == "box_features" else ()

    @property
    def work(self) -> frozenset[str]:
        """The parts of the timing that make the proposals and describe them."""
        return super().work | PROPOSALS_WORK | {self.described_by}


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


def base(name: str) -> str:
    """Return the name without its calibration, and whatever class its maps are of."""
    return name.removesuffix(BY_PREDICTED).removesuffix(CALIBRATED)


def entry(name: str) -> Entry:
    """Return the line of a method, or of the method whose calibrated twin it is."""
    return METHODS[base(name)]


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
    return isinstance(METHODS[name], Linear)


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
    lines = {name: METHODS[name] for name in names}
    return {k: line.described_by for k, line in lines.items() if isinstance(line, Colocalization)}


def thresholds(names: Iterable[str]) -> dict[str, str]:
    """Return the methods among these that threshold a heat map, and the column of that map."""
    lines = {name: METHODS[name] for name in names}
    return {name: line.column for name, line in lines.items() if isinstance(line, Threshold)}


def wants_proposals(names: Iterable[str]) -> bool:
    """Return whether any of the methods chooses a box among proposals."""
    return any(isinstance(entry(name), Proposal | Colocalization) for name in names)
