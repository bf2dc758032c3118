"""Every plot is a PNG that shows what it was given, however much or little that is."""

import io
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from PIL import Image

from sensloc.plots import (
    COLOURS,
    class_bars,
    iou_curves,
    label_efficiency,
    size_breakdown,
    speed_plane,
)

METHODS = [f"method_{i}" for i in range(8)]
GROUPS = ("under 10 %", "10 to 25 %", "25 to 50 %", "over 50 %")


def pixels(png: bytes) -> np.ndarray:
    """int [h, w, 3] of a plot that is neither blank nor of an odd size."""
    image = Image.open(io.BytesIO(png))
    image.load()
    assert image.format == "PNG"
    assert 700 < image.width < 1200
    assert image.height > 150
    shown = np.asarray(image.convert("RGB")).astype(int)
    assert 0.2 < (shown == 255).all(-1).mean() < 0.99
    return shown


def marked(shown: np.ndarray, colour: str) -> int:
    """How many pixels have the colour of a method."""
    rgb = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return int((np.abs(shown - rgb).sum(-1) < 12).sum())


def of_iou(k: int, title: str = "a title") -> bytes:
    thresholds = np.linspace(0, 1, 51)
    curves = {m: 100 - 100 * thresholds ** (1 + i / 3) for i, m in enumerate(METHODS[:k])}
    return iou_curves(thresholds.tolist(), curves, title)


def of_classes(k: int, title: str = "a title", classes: int = 20) -> bytes:
    rng = np.random.default_rng(0)
    names = [f"class {c}, a synonym" for c in range(classes)]
    return class_bars(names, {m: rng.uniform(0, 100, classes) for m in METHODS[:k]}, title)


def of_sizes(k: int, title: str = "a title") -> bytes:
    spans = {m: [(50.0 + 2 * i, 45.0 + 2 * i, 55.0 + 2 * i)] * 4 for i, m in enumerate(METHODS[:k])}
    return size_breakdown(GROUPS, [10, 200, 3000, 4], spans, title)


def of_labels(k: int, title: str = "a title") -> bytes:
    labels = [1, 2, 5, 10, 50]
    curves = {
        m: [(40.0 + 3 * i + 2 * j, 38.0 + 3 * i, 60.0) for j in range(5)]
        for i, m in enumerate(METHODS[:k])
    }
    return label_efficiency(labels, curves, {"reference": 61.0} if k < 8 else {}, title)


def of_speed(k: int, title: str = "a title") -> bytes:
    points = [(m, 1.5**i, 40.0 + i, 36.0 + i, 44.0 + i) for i, m in enumerate(METHODS[:k])]
    return speed_plane(points, title)


ALL = [of_iou, of_classes, of_sizes, of_labels, of_speed]
plot_of = pytest.mark.parametrize("draw", ALL, ids=lambda draw: draw.__name__)


@plot_of
@pytest.mark.parametrize("k", [1, 8])
def test_a_plot_shows_each_method_in_its_colour(draw: Callable[..., bytes], k: int):
    shown = pixels(draw(k))
    colours = COLOURS[:1] if draw is of_speed else [c for c in COLOURS[:k] if c != "#000000"]
    assert all(marked(shown, colour) > 20 for colour in colours)
    if k == 1 and draw is not of_labels:
        assert not any(marked(shown, colour) for colour in COLOURS[1:4])


@plot_of
def test_a_plot_is_a_function_of_its_input(draw: Callable[..., bytes]):
    two = draw(2)
    assert two == draw(2)
    assert two != draw(2, "another title")


@pytest.mark.parametrize("name", ["$x^$ and $y_$, é", "_a $ sign" + "x" * 50])
def test_any_name_and_title_can_be_drawn(name: str):
    one: Mapping[str, list[float]] = {name: [10.0, 20.0]}
    spans = {name: [(10.0, 5.0, 15.0), (20.0, 15.0, 25.0)]}
    for png in (
        iou_curves([0, 1], one, name),
        class_bars([name, name], one, name),
        size_breakdown([name, "b"], [1, 2], spans, name),
        label_efficiency([1, 2], spans, {f"{name} too": 3.0}, name),
        speed_plane([(name, 1.0, 10.0, 5.0, 15.0)], name),
    ):
        assert Image.open(io.BytesIO(png)).format == "PNG"


def test_more_classes_make_a_taller_plot():
    heights = [pixels(of_classes(3, classes=c)).shape[0] for c in (1, 20, 100)]
    assert heights == sorted(heights)
    assert 1500 < heights[-1] < 3000


def test_classes_stand_in_the_order_of_the_first_method():
    names, values = ["low", "high", "none"], [10.0, 90.0, float("nan")]
    swapped = class_bars(["high", "none", "low"], {"a": [90.0, float("nan"), 10.0]})
    assert class_bars(names, {"a": values}) == swapped


def test_what_is_missing_is_not_drawn():
    nothing = (float("nan"),) * 3
    spans = {"a": [(50.0, 45.0, 55.0)] * 4, "b": [nothing] * 3 + [(50.0, 45.0, 55.0)]}
    whole = {"a": spans["a"], "b": spans["a"]}
    part, full = (pixels(size_breakdown(GROUPS, [1] * 4, s)) for s in (spans, whole))
    assert marked(part, COLOURS[0]) == marked(full, COLOURS[0])
    assert 0 < marked(part, COLOURS[1]) < marked(full, COLOURS[1])


def test_no_labels_at_all_have_a_place():
    curve = {"a": [(10.0, 10.0, 10.0), (20.0, 15.0, 25.0), (30.0, 28.0, 31.0)]}
    pixels(label_efficiency([0, 1, 100], curve, {}))


@pytest.mark.parametrize("ms", [0.0, -1.0, float("nan")])
def test_a_time_that_is_not_positive_is_refused(ms: float):
    with pytest.raises(ValueError, match=r"slow: .* is not positive"):
        speed_plane([("slow", ms, 10.0, 5.0, 15.0)])
