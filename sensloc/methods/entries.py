"""The kinds of methods that a catalogue has lines of: what each reads, and what it is told."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

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
