"""Heat maps: what a classifier says about each place of an image.

The registry, which imports no torch: the name of a heat map is the name of its file, whose function
``reading(options)`` or, for a map of inner layers, ``reading(options, stride)`` says how it is read
from a pass. Adding a heat map is that file and one line here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

STRIDES = (8, 16, 32)
"""Where inner layers are read: cells of so many pixels. A transformer has the stride of its
patches."""


@dataclass(frozen=True)
class HeatMap:
    """An entry of the registry.

    Attributes:
        title: What it is called in tables.
        inner: Whether it is read at an inner layer: its names end in the layer's stride.
        channels: Whether it has many values at each place: it is no map then, but something that
            the foreground's read-out reads.
        part: Whether it is of a part of the image, the region in a column of its own: a method must
            know.
        learned: Whether it is made by a read-out that a run learns.
    """

    title: str
    inner: bool = False
    channels: bool = False
    part: bool = False
    learned: bool = False


KINDS: Mapping[str, HeatMap] = {
    "gradient": HeatMap("sensitivity map"),
    "smoothgrad": HeatMap("SmoothGrad"),
    "integrated": HeatMap("Integrated Gradients"),
    "random": HeatMap("random network's map"),
    "cam": HeatMap("CAM"),
    "gradcam": HeatMap("Grad-CAM"),
    "inner": HeatMap("inner sensitivity", inner=True),
    "layercam": HeatMap("LayerCAM", inner=True),
    "hirescam": HeatMap("HiResCAM", inner=True),
    "activation": HeatMap("activations", inner=True, channels=True),
    "foreground": HeatMap("foreground", learned=True),
    "foreground_second": HeatMap("foreground, second look", part=True, learned=True),
    "foreground_forward": HeatMap("foreground, forward pass only", learned=True),
    "foreground_sensitivities": HeatMap("foreground, sensitivities only", learned=True),
}
"""By the name of the file."""

PREDICTED = -1
"""As a label: take the score of the class that the network itself predicts."""

MAIN = "gradient"
"""The paper's, which every run makes."""

FOREGROUND, SECOND = "foreground", "foreground_second"
"""The one that is learned, see ``sensloc.heatmaps.foreground``; and that of the part of the image
around its box, see ``sensloc.prediction.looks``."""


def names() -> tuple[str, ...]:
    """Return the names of all heat maps but the learned, those of inner layers at ``STRIDES``."""
    return tuple(
        name
        for kind, entry in KINDS.items()
        if not (entry.channels or entry.learned)
        for name in ([f"{kind}_{stride}" for stride in STRIDES] if entry.inner else [kind])
    )


def kind_and_stride(name: str) -> tuple[str, int | str | None]:
    """Split the name of a heat map: "layercam_16" is ("layercam", 16), "cam" is ("cam", None).

    What has channels may be read at a module that is named: "activation_blocks.5".

    Raises:
        ValueError: There is no such heat map; the message says which there are.
    """
    if name in KINDS and not KINDS[name].inner:
        return name, None
    kind, _, place = name.partition("_")
    if kind in KINDS and KINDS[kind].inner:
        if place.isdecimal() and int(place) > 1:
            return kind, int(place)
        if KINDS[kind].channels and place and not place.isdecimal():
            return kind, place
    known = [f"{kind}_<stride>" if entry.inner else kind for kind, entry in KINDS.items()]
    raise ValueError(f"no heat map {name!r}; there are {', '.join(known)}")


def has_channels(name: str) -> bool:
    """Return whether what has that name has many values at each place, and is no map."""
    return KINDS[kind_and_stride(name)[0]].channels


def is_learned(name: str) -> bool:
    """Return whether a heat map is made by a read-out that a run learns."""
    return KINDS[kind_and_stride(name)[0]].learned


def title(name: str) -> str:
    """Return what a heat map is called in tables."""
    kind, stride = kind_and_stride(name)
    return KINDS[kind].title + (f" at stride {stride}" if stride else "")


def column(name: str) -> str:
    """Return the column of a table that holds the heat map: ``map`` is the paper's."""
    return "map" if name == MAIN else f"map_{name}"


def given(name: str) -> str:
    """Return the column that holds a heat map which others made, by its name in the config."""
    return f"map_given_{name}"


def region(column: str) -> str:
    """Return the column that holds the region of the image that a column's map shows."""
    return f"{column}_region"


def names_of(columns: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the heat maps among the columns of a table, sorted."""
    found = {MAIN if name == "map" else name.removeprefix("map_") for name in columns}
    return tuple(sorted(name for name in found if _is_heat_map(name)))


def _is_heat_map(name: str) -> bool:
    try:
        kind_and_stride(name)
    except ValueError:
        return False
    return True
