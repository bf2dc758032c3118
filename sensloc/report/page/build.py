"""What a run holds -> what the page says: plain values in, plain values out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import sensloc
from sensloc.config import Config
from sensloc.methods import catalogue
from sensloc.prediction.localizer import Facts
from sensloc.report import comparison, text
from sensloc.report.page import charts
from sensloc.report.page.gallery import Card, first
from sensloc.report.page.render import Page, Table
from sensloc.scoring import corloc, counts

MAIN = catalogue.MAIN
"""The paper's method: the page's first figure."""

FASTEST = 1.0
"""Milliseconds: what takes less stands here in the chart."""

KINDS = 12
"""Of errors, at most, by name; the rest is counted together."""


@dataclass(frozen=True)
class Found:
    """What the page is made of.

    Attributes:
        config: of the run.
        record: ``run.json``.
        audit: ``audit.json``.
        corloc: rows of ``corloc/``.
        counts: of the predictions, see ``sensloc.scoring.counts``.
        errors: reasons for which images of the sensitivity table take no part, and how many.
        coefficients: [4, G * G] of the linear map.
        localizer: its facts.
        cards: of the gallery.
        compared: the tables of ``compare/`` by name; empty where there is no comparison.
    """

    config: Config
    record: Mapping[str, Any]
    audit: Mapping[str, Any]
    corloc: Sequence[Mapping[str, Any]]
    counts: pa.Table
    errors: Mapping[str, int]
    coefficients: npt.NDArray[np.float64]
    localizer: Facts
    cards: Sequence[Card]
    compared: Mapping[str, pa.Table]

    @property
    def stages(self) -> Mapping[str, Any]:
        """Of ``run.json``."""
        return {k: made for k, made in self.record["stages"].items() if "finished" in made}

    @property
    def overall(self) -> dict[str, Mapping[str, Any]]:
        """CorLoc over images, per method of the run itself."""
        return {row["method"]: row for row in self.corloc if row["scope"] == "overall"}


def shown(there: Sequence[str]) -> list[str]:
    """The methods of the charts and the gallery, in the order of their looks."""
    ours = [name for name in catalogue.with_twins(catalogue.METHODS) if name in there]
    return ours if len(ours) <= charts.MOST else [name for name in ours if name in comparison.SHOWN]


def page(found: Found, now: datetime) -> Page:
    """All of it."""
    methods = shown(list(dict.fromkeys(found.counts["method"].to_pylist())))
    titles = [catalogue.title(name) for name in methods]
    return Page(
        title=found.config.name,
        value=f"{found.overall[MAIN]['corloc']:.1f}",
        lead=_lead(found),
        tiles=_tiles(found),
        methods=_systems(found),
        protocols=_protocols(found),
        shown=titles,
        main=catalogue.title(MAIN),
        charts=_charts(found, methods),
        speeds=[
            f"{row['method']}: {row['corloc']:.1f} %, {_ms(row['ms'])}" for row in _speeds(found)
        ],
        unseen=_unseen(found),
        confidence=_confidence(found.localizer),
        cards=found.cards,
        gallery=(
            f"{len(found.cards):,} of the {found.overall[MAIN]['n_images']:,} test images, drawn "
            "by seed, hits and misses as they come. Open one to see every method on it."
        ),
        left_out=_left_out(found),
        first_errors=found.audit["first_errors"],
        provenance=_provenance(found),
        config=json.dumps(found.record["config"], indent=2),
        times=_times(found),
        version=sensloc.__version__,
        made=f"{now:%Y-%m-%d %H:%M %Z}".strip(),
    )


# --------------------------------------------------------------------------- words and tables


def _lead(found: Found) -> str:
    ours, calibrated = found.overall[MAIN], found.overall[catalogue.PREDICTS]
    tuned = found.overall[catalogue.TUNED_BOX]
    return (
        f"The sensitivity map's box on {ours['n_images']:,} test images, 95 % interval "
        f"{ours['ci_low']:.1f} to {ours['ci_high']:.1f}. Calibrated, it is right on "
        f"{calibrated['corloc']:.1f} %. The best constant box, which looks at no image, is right "
        f"on {tuned['corloc']:.1f} %. The paper reports {text.PAPER[MAIN]:.2f} %, on its own "
        "images."
    )


def _tiles(found: Found) -> list[tuple[str, ...]]:
    audit, made = found.audit, found.stages["sensitivity"]
    top1 = made["top1"].get("test")
    return [
        ("images", f"{audit['images']:,}", ""),
        ("classes", f"{audit['classes']:,}", ""),
        ("test images", f"{audit['splits'].get('test', 0):,}", ""),
        ("classifier, top-1", "" if top1 is None else f"{top1:.1f} %", "of test"),
        ("sensitivity maps", *text.pace(made).split(" ", 1)),
        ("with an error", f"{made['errors']:,}", ""),  # the manifest's among them
    ]


def _systems(found: Found) -> Table:
    label, strong = "CorLoc of every system", catalogue.title(MAIN)
    if "table" in found.compared:
        rows = found.compared["table"].to_pylist()
        return Table(
            label,
            comparison.MAIN,
            comparison.main_lines(rows),
            comparison.notes(found.config),
            strong,
        )
    lines = [
        [catalogue.title(method), *cells]
        for method, *cells in text.main_lines(pa.Table.from_pylist(list(found.corloc)))
    ]
    return Table(label, text.HEADER, lines, text.protocol(found.config), strong)


def _protocols(found: Found) -> Table | None:
    if "table" not in found.compared:
        return None
    rows = found.compared["table"].to_pylist()
    header = ["method", *comparison.PROTOCOL]
    lines = comparison.protocol_lines(rows)
    note = comparison.protocol_notes(rows[0]["n_single"])
    return Table("CorLoc under other protocols", header, lines, note, catalogue.title(MAIN))


def _unseen(found: Found) -> Table | None:
    if not found.compared or len(found.compared["unseen"]) == 0:
        return None
    return Table(
        "CorLoc on seen and unseen classes",
        comparison.UNSEEN,
        comparison.unseen_lines(found.compared["unseen"]),
    )


def _confidence(facts: Facts) -> str:
    test = facts.test
    return (
        f"Prediction gives each box a confidence, learned on {facts.validation.images:,} "
        f"validation images. On the {test.images:,} test images, with the class predicted too, "
        f"{test.corloc:.1f} % of the boxes are right; the confidence is {test.confidence:.1f} % on "
        f"average. Expected calibration error: {test.calibration_error:.1f} points (bins of equal "
        "size: chance alone makes several points where they are small)."
    )


def _left_out(found: Found) -> Table:
    doubles = found.audit["duplicates"]
    reasons = [*found.audit["left_out"].items()]
    if found.audit["not_drawn"]:
        reasons.append(("not drawn (dataset.n_images)", found.audit["not_drawn"]))
    ranked = sorted(found.errors.items(), key=lambda item: (-item[1], item[0]))
    errors = [(f"error: {reason}", n) for reason, n in ranked[:KINDS]]
    if rest := sum(n for _, n in ranked[KINDS:]):
        errors.append(("error: others", rest))
    if doubles["images"]:
        across = f"kept in one set; {doubles['across_classes']:,} across classes"
        reasons.append((f"copies of another image ({across})", doubles["images"]))
    lines = [(reason, f"{n:,}") for reason, n in [*reasons, *errors]]
    return Table("What was left out", ("reason", "images"), lines)


def _provenance(found: Found) -> Table:
    record, config, stages = found.record, found.config, found.stages
    versions = {**record["versions"], **record["packages"]}
    said = {
        "command": " ".join(["python", *stages["sensitivity"]["command"]]),
        "data set": f"{config.dataset.layout}, {config.dataset.root}",
        "its listing, images, classes": ", ".join(
            [
                str(stages["manifest"]["of"].get("data set's listing")),
                found.audit["images_hash"],
                found.audit["classes_hash"],
            ]
        ),
        "network": config.classifier.source,
        "its weights": found.localizer.weights,
        "config": record["config_hash"],
        "git commit": record["git_commit"] or "none: not made in a checkout",
        "python": record["python"],
        "packages": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return Table("Provenance", ("what", "which"), list(said.items()))


def _times(found: Found) -> Table:
    lines = [
        (
            name,
            f"{datetime.fromisoformat(made['begun']):%Y-%m-%d %H:%M:%S %Z}",
            f"{made['seconds']:,.1f}",
            f"{made['attempts']}",
        )
        for name, made in found.stages.items()
    ]
    return Table("Stages of the run", ("stage", "begun", "seconds", "attempts"), lines)


# --------------------------------------------------------------------------- charts


def _charts(found: Found, methods: Sequence[str]) -> dict[str, charts.Spec]:
    title = {name: catalogue.title(name) for name in methods}
    titles, tally = list(title.values()), found.counts
    made = {
        "iou": charts.iou_curves(
            [
                {"method": title[name], "threshold": k / counts.STEPS, "share": round(float(y), 3)}
                for name in methods
                for k, y in enumerate(counts.curve(tally, name))
                if k % 2 == 0
            ],
            titles,
        ),
        "sizes": charts.sizes(
            [
                {"method": title[row["method"]], "group": row["group"], **_share(row, found.config)}
                for groups in counts.groups(tally, "area").values()
                for row in groups.values()
                if row["method"] in title
            ],
            titles,
            counts.AREA_GROUPS,
        ),
        "classes": charts.classes(
            [
                {
                    "method": title[row["method"]],
                    "name": _named(row),
                    "wnid": row["group"],
                    **_share(row, found.config),
                }
                for groups in counts.groups(tally, "class").values()
                for row in groups.values()
                if row["method"] in title
            ],
            _main_first(titles),
        ),
        "weights": charts.weights(found.coefficients),
        "reliability": charts.reliability(
            [
                {"confidence": 100 * one.confidence, "right": 100 * one.right, "n": one.images}
                for one in found.localizer.test.reliability
            ]
        ),
    }
    if speeds := _speeds(found):
        made["speed"] = charts.speed_plane(speeds)
    if found.compared and len(found.compared["labels"]):
        rows = comparison.label_spans(found.compared["labels"])
        made["labels"] = charts.labels(rows, list(dict.fromkeys(row["method"] for row in rows)))
    return made


def _main_first(titles: Sequence[str]) -> list[str]:
    return sorted(titles, key=lambda title: title != catalogue.title(MAIN))


def _named(row: Mapping[str, Any]) -> str:
    return first(row["class_name"]) or str(row["group"])


def _share(row: Mapping[str, Any], config: Config) -> dict[str, float]:
    n, draws = row["n_images"], (config.evaluate.bootstrap, config.evaluate.seed)
    one = corloc.share(row["n_correct"], n, *draws)
    return {
        "n": n,
        "corloc": round(one.value, 2),
        "low": round(one.low, 2),
        "high": round(one.high, 2),
    }


def _speeds(found: Found) -> list[dict[str, Any]]:
    """The compared methods that take time and are neither a control nor a floor, best first."""
    if "table" not in found.compared:
        return []
    rows = sorted(found.compared["table"].to_pylist(), key=lambda row: -row["corloc"])
    timed = [
        row
        for row in rows
        if row["ms_per_image"] and catalogue.base(row["method"]) not in catalogue.CONTROLS
    ]
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


def _ms(value: float) -> str:
    return f"{value:.3g} ms" if value > FASTEST else f"under {FASTEST:g} ms"
