"""What the charts draw: a run's numbers as the rows of each chart."""

from collections.abc import Iterable, Sequence
from typing import Any

from sensloc.config import Evaluate
from sensloc.methods import catalogue
from sensloc.report import comparison
from sensloc.report.page import charts
from sensloc.report.page.findings import RunFindings
from sensloc.report.page.gallery import first_synonym
from sensloc.report.text import Row
from sensloc.scoring import corloc, counts

FASTEST = 1.0
"""Milliseconds per image: what takes less stands here in the chart."""


def in_order(names: Iterable[str]) -> list[str]:
    """Return names of methods in the catalogue's order, those of maps that others made behind them,
    those by predicted classes last.
    """
    named = dict.fromkeys(names)
    given = {catalogue.base(name): None for name in named if catalogue.is_given(name)}
    every = catalogue.with_twins([*catalogue.METHODS, *given])
    predicted = (name + catalogue.BY_PREDICTED for name in every)
    return [name for name in (*every, *predicted) if name in named]


def charted_methods(available: Iterable[str]) -> list[str]:
    """Return the methods of the charts and the gallery, in the catalogue's order.

    Args:
        available: names of the methods that gave predictions.

    Returns:
        All of them that have a title, or ``catalogue.DRAWN`` alone where those are more than a
        chart can tell apart.
    """
    known = in_order(available)
    if len(known) <= charts.MOST:
        return known
    plain = (name for name in catalogue.DRAWN if name == catalogue.base(name))
    drawn = catalogue.DRAWN | {name + catalogue.BY_PREDICTED for name in plain}
    return [name for name in known if name in drawn]


def chart_specs(findings: RunFindings) -> dict[str, charts.Spec]:
    """Return the charts of the page, by name; "speed" and "labels" need a comparison."""
    title_of = {name: catalogue.title(name) for name in findings.charted}
    titles = list(title_of.values())
    specs = {
        "iou": charts.iou_curves(_curves(findings), titles),
        "sizes": charts.sizes(_shares(findings, "area"), titles, counts.AREA_GROUPS),
        "classes": charts.classes(_class_shares(findings), _reference_first(titles)),
        "weights": charts.weights(findings.coefficients),
        "reliability": charts.reliability(
            [
                {"confidence": 100 * b.confidence, "right": 100 * b.right, "n": b.images}
                for b in findings.localizer.test.reliability
            ]
        ),
    }
    if speeds := timed_methods(findings):
        specs["speed"] = charts.speed_plane(speeds)
    if findings.compared["labels"]:
        spans = comparison.label_spans(findings.compared["labels"])
        specs["labels"] = charts.labels(spans, list(dict.fromkeys(s["method"] for s in spans)))
    return specs


def _reference_first(titles: Sequence[str]) -> list[str]:
    return sorted(titles, key=lambda title: title != catalogue.title(catalogue.MAIN))


def _curves(findings: RunFindings) -> list[Row]:
    """Return the share of images whose IoU is at least 0, 0.02, ..., 1, for each method."""
    return [
        {
            "method": catalogue.title(name),
            "threshold": step / counts.STEPS,
            "share": round(float(share), 3),
        }
        for name in findings.charted
        for step, share in enumerate(counts.curve(findings.counts, name))
        if step % 2 == 0
    ]


def _shares(findings: RunFindings, by: str) -> list[dict[str, Any]]:
    """Return CorLoc with its interval, for each charted method and each group of images.

    Args:
        findings: the run's.
        by: the way of grouping, see ``sensloc.scoring.counts``.
    """
    return [
        {
            "method": catalogue.title(method),
            "group": group,
            "n": row["n_images"],
            **_interval(row["n_correct"], row["n_images"], findings.config.evaluate),
        }
        for method, groups in counts.groups(findings.counts, by).items()
        if method in findings.charted
        for group, row in groups.items()
    ]


def _class_shares(findings: RunFindings) -> list[dict[str, Any]]:
    """Return CorLoc per class, by the name that the chart shows."""
    classes = counts.groups(findings.counts, "class").values()
    name_of = {wnid: row["class_name"] for rows in classes for wnid, row in rows.items()}
    rows = _shares(findings, "class")
    wnids = [row.pop("group") for row in rows]
    return [
        {"name": first_synonym(name_of[wnid]) or wnid, "wnid": wnid, **row}
        for wnid, row in zip(wnids, rows, strict=True)
    ]


def _interval(correct: int, images: int, config: Evaluate) -> dict[str, float]:
    share = corloc.share(correct, images, config.bootstrap, config.seed)
    return {
        "corloc": round(share.value, 2),
        "low": round(share.low, 2),
        "high": round(share.high, 2),
    }


def timed_methods(findings: RunFindings) -> list[dict[str, Any]]:
    """Return the compared methods that are no control and read no truth, the best first.

    Returns:
        Rows of number (from 1), method (its title), ms (at least ``FASTEST``), corloc, low and
        high (percent).
    """
    timed = [
        row
        for row in findings.compared["table"]
        if row["ms_per_image"] and catalogue.base(row["method"]) not in catalogue.CONTROLS
    ]
    timed.sort(key=lambda row: -row["corloc"])
    return [
        {
            "number": number,
            "method": row["title"],
            "ms": max(row["ms_per_image"], FASTEST),
            "corloc": row["corloc"],
            "low": row["ci_low"],
            "high": row["ci_high"],
        }
        for number, row in enumerate(timed, 1)
    ]


def speed_key(findings: RunFindings) -> list[str]:
    """Return what the numbers in the chart of speed stand for, a line for each."""
    return [
        f"{row['method']}: {row['corloc']:.1f} %, "
        + (f"{row['ms']:.3g} ms" if row["ms"] > FASTEST else f"under {FASTEST:g} ms")
        for row in timed_methods(findings)
    ]
