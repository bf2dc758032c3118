"""The charts of the page, as Vega-Lite: one function each, from rows of numbers.

Colours are the page's (light and dark differ); what a colour tells is also told by a dash, a shape
or a place. Methods keep their look where every chart gets the same ``methods`` in the same order.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import numpy.typing as npt

from sensloc.report.text import Row

DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [1, 0], [6, 3], [2, 2], [8, 3, 2, 3])
SHAPES = (
    *("circle", "square", "triangle-up", "diamond"),
    *("cross", "triangle-down", "triangle-right", "triangle-left"),
)
MOST = len(DASHES)
"""As many methods can be told apart in a chart."""

CORLOC = "CorLoc, %"
AHEAD, BEHIND = "#1f87d1", "#8a8a8a"
"""The colours of ``speed_plane``, which are seen on light and on dark."""

TWO_LINES = "split(replace(datum.label, /(under|over|to) /, '$1|'), '|')"
"""A Vega expression that breaks a group's name into two lines."""

CLASS_RANK = (
    "order == 'best' ? -datum.corloc : order == 'images' ? -datum.n : "
    "order == 'name' ? datum.place : datum.corloc"
)
CLASS_MATCHES = "indexof(lower(datum.name + ' ' + datum.wnid), lower(search)) >= 0"
"""Vega expressions: where a class stands, and whether the search finds it."""

EDGES = ("left edge", "top edge", "right edge", "bottom edge")

Spec = dict[str, Any]
"""A chart in Vega-Lite's JSON."""


def iou_curves(rows: Sequence[Row], methods: Sequence[str]) -> Spec:
    """Return curves of the share of images whose IoU is at least so high.

    Args:
        rows: method, threshold, share (percent).
        methods: in the order of their looks.
    """
    line = (
        _chart(rows)
        .mark_line(point=alt.OverlayMarkDef(opacity=0, size=80), strokeWidth=2)
        .encode(
            alt.X("threshold:Q", title="IoU threshold", scale=alt.Scale(domain=[0, 1])),
            alt.Y("share:Q", title="images at or above it, %", scale=alt.Scale(domain=[0, 100])),
            _colour(methods, _LINES),
            alt.StrokeDash("method:N", scale=_scale(methods, DASHES), legend=_LINES),
            tooltip=["method:N", _number("threshold", ".2f"), _number("share")],
        )
    )
    half = _chart([{"threshold": 0.5}]).mark_rule(opacity=0.5).encode(alt.X("threshold:Q"))
    return _spec(half + line, 320)


def speed_plane(rows: Sequence[Row]) -> Spec:
    """Return CorLoc against time per image; what no other beats in both is filled and joined.

    Args:
        rows: number (shown beside the point), method, ms (> 0), corloc, low, high (percent).
    """
    best, marked = -1.0, []
    for row in sorted(rows, key=lambda row: (row["ms"], -row["corloc"])):
        unbeaten = row["corloc"] > best
        best = max(best, row["corloc"])
        marked.append({**row, "front": unbeaten})
    x = alt.X("ms:Q", title="milliseconds per image, logarithmic", scale=_LOG, axis=_FEW)
    y = alt.Y("corloc:Q", title=CORLOC, scale=alt.Scale(zero=False))
    hint = [alt.Tooltip("method:N"), _number("ms", ".3~g"), *_interval()]
    points = _chart(marked).encode(x, tooltip=hint)
    front = _chart([row for row in marked if row["front"]]).encode(x, y)
    look = alt.Color("front:N", scale=_ahead(BEHIND), legend=None)
    fill = alt.Fill("front:N", scale=_ahead("transparent"), legend=None)
    layers = [
        front.mark_line(interpolate="step-after", opacity=0.4, color=AHEAD),
        points.mark_rule(opacity=0.7).encode(alt.Y("low:Q", title=CORLOC), alt.Y2("high:Q"), look),
        points.mark_point(size=70, opacity=1).encode(y, look, fill=fill),
        points.mark_text(align="left", dx=7, dy=-7, fontSize=11).encode(y, alt.Text("number:N")),
    ]
    return _spec(alt.layer(*layers), 340)


def _ahead(behind: str) -> alt.Scale:
    return alt.Scale(domain=[True, False], range=[AHEAD, behind])


def sizes(rows: Sequence[Row], methods: Sequence[str], groups: Sequence[str]) -> Spec:
    """Return CorLoc with its interval per group of images, methods side by side.

    Args:
        rows: method, group, n, corloc, low, high.
        methods: in the order of their looks.
        groups: names of the groups, in their order.
    """
    base = _chart(rows).encode(
        alt.X("group:N", sort=list(groups), title="largest object's share of the image",
              axis=alt.Axis(labelAngle=0, labelExpr=TWO_LINES)),
        alt.XOffset("method:N", sort=list(methods)),
        _colour(methods, _POINTS),
        tooltip=["method:N", "group:N", _number("n", ",.0f"), *_interval()],
    )  # fmt: skip
    y = alt.Y("corloc:Q", title=CORLOC, scale=alt.Scale(domain=[0, 100]))
    rule = base.mark_rule(strokeWidth=2).encode(
        alt.Y("low:Q", scale=alt.Scale(domain=[0, 100]), title=CORLOC), alt.Y2("high:Q")
    )
    shape = alt.Shape("method:N", scale=_scale(methods, SHAPES), legend=_POINTS)
    return _spec(rule + base.mark_point(filled=True, size=60, opacity=1).encode(y, shape), 320)


def labels(rows: Sequence[Row], methods: Sequence[str]) -> Spec:
    """Return CorLoc against the number of boxes to learn from.

    Args:
        rows: method, n (boxed images, > 0), corloc (mean over draws), low, high (extremes).
        methods: in the order of their looks.
    """
    base = _chart(rows).encode(
        alt.X("n:Q", title="boxed images to learn from, logarithmic", scale=_LOG, axis=_FEW),
        _colour(methods, _LINES),
        tooltip=["method:N", _number("n", ",.0f"), *_interval()],
    )
    y = alt.Y("corloc:Q", title=CORLOC, scale=alt.Scale(zero=False))
    band = base.mark_area(opacity=0.15).encode(alt.Y("low:Q", title=CORLOC), alt.Y2("high:Q"))
    dash = alt.StrokeDash("method:N", scale=_scale(methods, DASHES), legend=_LINES)
    line = base.mark_line(point=alt.OverlayMarkDef(size=40), strokeWidth=2).encode(y, dash)
    return _spec(band + line, 320)


def classes(rows: Sequence[Row], methods: Sequence[str]) -> Spec:
    """Return CorLoc per class, for one method at a time.

    The page's own controls choose: #class-search (a part of the name), #class-order (worst, best,
    name, images) and #class-method.

    Args:
        rows: name, wnid, method, n, corloc, low, high.
        methods: whose rows they are; the first is shown first.
    """
    names = sorted({row["name"] for row in rows})
    place = {name: i for i, name in enumerate(names)}
    values = [{**row, "place": place[row["name"]]} for row in rows]
    search, order, method = (
        alt.param(name=name, value=value, bind=alt.BindDirect(element=f"#class-{name}"))
        for name, value in (("search", ""), ("order", "worst"), ("method", methods[0]))
    )
    base = (
        _chart(values)
        .transform_filter(f"datum.method == method && {CLASS_MATCHES}")
        .transform_calculate(rank=CLASS_RANK)
        .encode(
            alt.Y(
                "name:N",
                sort=alt.EncodingSortField("rank", op="min", order="ascending"),
                title=None,
                axis=alt.Axis(labelLimit=150),
            ),
            tooltip=["name:N", "wnid:N", _number("n", ",.0f"), *_interval()],
        )
    )
    x = alt.X(
        "corloc:Q",
        title=CORLOC,
        scale=alt.Scale(domain=[0, 100]),
        axis=alt.Axis(orient="top", values=[0, 50, 100]),
    )
    rule = base.mark_rule(strokeWidth=1.5).encode(alt.X("low:Q", title=CORLOC), alt.X2("high:Q"))
    chart = (base.mark_bar(opacity=0.55, height={"band": 0.7}).encode(x) + rule).add_params(
        search, order, method
    )
    return _spec(chart, alt.Step(22))


def weights(coefficients: npt.NDArray[np.float64]) -> Spec:
    """Return the linear map's weights where they stand in the image, a picture per edge of the box.

    Args:
        coefficients: [4, G * G], row-major, of x0, y0, x1, y1.

    Returns:
        Four pictures side by side; the page lowers ``columns`` where it is narrow.
    """
    side = round(coefficients.shape[1] ** 0.5)
    rows = [
        {"edge": edge, "x": i % side, "y": i // side, "weight": round(float(value), 4)}
        for edge, grid in zip(EDGES, coefficients, strict=True)
        for i, value in enumerate(grid)
    ]
    chart = (
        _chart(rows)
        .mark_rect()
        .encode(
            alt.X("x:O", axis=None),
            alt.Y("y:O", axis=None),
            alt.Color(
                "weight:Q",
                scale=alt.Scale(scheme="blueorange", domainMid=0),
                legend=alt.Legend(orient="bottom", gradientLength=280, title="weight"),
            ),
            tooltip=["edge:N", "x:O", "y:O", _number("weight", ".3f")],
        )
        .properties(width=150, height=150)
        .facet(alt.Facet("edge:N", sort=list(EDGES), title=None), columns=4, spacing=12)
    )
    return dict(chart.to_dict())


def reliability(rows: Sequence[Row]) -> Spec:
    """Return the share of right boxes against the confidence that was promised.

    Args:
        rows: confidence, right (percent), n.
    """
    axis = alt.Scale(domain=[0, 100])
    diagonal = _chart([{"confidence": 0, "right": 0}, {"confidence": 100, "right": 100}])
    x = alt.X("confidence:Q", title="confidence, %", scale=axis, axis=alt.Axis(tickCount=5))
    y = alt.Y("right:Q", title="boxes that are right, %", scale=axis)
    hint = [_number("confidence"), _number("right"), _number("n", ",.0f")]
    points = _chart(rows).encode(x, y, tooltip=hint)
    layers = [
        diagonal.mark_line(strokeDash=[4, 4], opacity=0.6).encode(x, y),
        points.mark_line(opacity=0.6),
        points.mark_point(filled=True, size=70, opacity=1),
    ]
    return _spec(alt.layer(*layers), 320)


# ------------------------------------------------------------------------------- the common look


def _legend(symbol: str | None = None) -> alt.Legend:
    return alt.Legend(
        title=None,
        orient="bottom",
        columns=1,
        labelLimit=320,
        symbolSize=120,
        symbolOpacity=1,
        symbolType=alt.Undefined if symbol is None else symbol,
    )


_LOG = alt.Scale(type="log", nice=False)
_FEW = alt.Axis(labelOverlap="greedy", labelSeparation=8)
_LINES, _POINTS = _legend("stroke"), _legend()


def _chart(rows: Sequence[Row]) -> alt.Chart:
    return alt.Chart(alt.InlineData(values=[dict(row) for row in rows]))


def _spec(chart: Any, height: int | alt.Step) -> Spec:
    return dict(chart.properties(width="container", height=height).to_dict())


def _scale(methods: Sequence[str], looks: Sequence[Any]) -> alt.Scale:
    return alt.Scale(domain=list(methods), range=list(looks[: len(methods)]))


def _colour(methods: Sequence[str], legend: alt.Legend) -> alt.Color:
    return alt.Color("method:N", scale=alt.Scale(domain=list(methods)), legend=legend)


def _number(field: str, form: str = ".1f") -> alt.Tooltip:
    return alt.Tooltip(f"{field}:Q", format=form)


def _interval() -> list[alt.Tooltip]:
    return [_number("corloc"), _number("low"), _number("high")]
