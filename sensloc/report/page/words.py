"""What the page says in words and tables."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter

from sensloc.methods import catalogue
from sensloc.report import comparison, text
from sensloc.report.page.findings import RunFindings
from sensloc.report.page.series import in_order
from sensloc.report.text import table_lines
from sensloc.scoring import counts

MOST_REASONS = 12
"""Reasons for errors that have a line of their own; the images of the others are one sum."""

Cells = Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        label: what it shows, for those who hear the page.
        lines: the cells of each line; the headings are the first line.
        note: what stands below it.
    """

    label: str
    lines: Sequence[Cells]
    note: str = ""


Tile = tuple[str, str, str]
"""A fact at a glance: its name, its value, and what stands behind the value."""


def sentences(findings: RunFindings) -> dict[str, str]:
    """Return the sentences of the page, by their places in page.html."""
    by_method = {row["method"]: row for row in findings.corloc}
    reference = by_method[catalogue.MAIN]
    calibrated = by_method[catalogue.CALIBRATED_MAIN]
    constant = by_method[catalogue.TUNED_BOX]
    validation, test = findings.localizer.validation, findings.localizer.test
    other = text.taken_from(findings.stages)
    images = "images of another data set" if other else "test images"
    return {
        "corloc": f"{reference['corloc']:.1f}",
        "lead": _elsewhere(findings, other)
        + (
            f"The sensitivity map's box on {reference['n_images']:,} {images}, 95 % interval "
            f"{reference['ci_low']:.1f} to {reference['ci_high']:.1f}. Calibrated, it is right on "
            f"{calibrated['corloc']:.1f} %. The {'' if other else 'best '}constant box"
            f"{' of ' + other['run'] if other else ''}, which looks at no image, is "
            f"right on {constant['corloc']:.1f} %. The paper reports {reference['paper']:.2f} %, "
            "on its own images." + _beyond(by_method)
        ),
        "confidence": (
            f"Prediction gives each box a confidence, learned on {validation.images:,} validation "
            f"images{' of ' + other['run'] if other else ''}. On the {test.images:,} {images}, "
            "with the class predicted too, "
            f"{test.corloc:.1f} % of the boxes are right; the confidence is "
            f"{test.confidence:.1f} % on average. Expected calibration error: "
            f"{test.calibration_error:.1f} points (bins of equal size: chance alone makes several "
            "points where they are small)."
        ),
        "gallery": (
            f"{len(findings.cards):,} of the {findings.corloc[0]['n_images']:,} {images}, drawn "
            "by seed, hits and misses as they come. Open one to see every method on it."
            + (" The maps that lie over them are of the predicted class." if other else "")
        ),
        "config": json.dumps(findings.record["config"], indent=2),
    }


def _elsewhere(findings: RunFindings, other: text.Row | None) -> str:
    """Return what the lead says first where a fitted run is judged on other data."""
    if other is None:
        return ""
    dataset = findings.config.dataset
    return (
        f"Judged on other data: what {other['run']} has fitted, on all images of {dataset.layout}, "
        f"{dataset.root}. "
    )


def _beyond(by_method: Mapping[str, text.Row]) -> str:
    """Return what the lead says of the foreground, the last look if there are two."""
    looks = [by_method[name] for name in catalogue.FOREGROUNDS if name in by_method]
    if not looks:
        return ""
    again = " after a second look" if len(looks) > 1 else ""
    return (
        " The foreground map, which goes beyond the paper and is read from the same pass, is right "
        f"on {looks[-1]['corloc']:.1f} %{again}."
    )


def tiles(findings: RunFindings) -> list[Tile]:
    """Return what is good to know at once."""
    audit, sensitivity = findings.audit, findings.stages["sensitivity"]
    top1 = sensitivity["top1"].get("test")
    pace, _, unit = text.pace(sensitivity).partition(" ")
    return [
        ("images", f"{audit['images']:,}", ""),
        ("classes", f"{audit['classes']:,}", ""),
        ("test images", f"{audit['splits'].get('test', 0):,}", ""),
        ("classifier, top-1", "" if top1 is None else f"{top1:.1f} %", "of test"),
        ("sensitivity maps", pace, unit),
        ("with an error", f"{sensitivity['errors']:,}", ""),  # the manifest's among them
    ]


def tables(findings: RunFindings) -> dict[str, Table]:
    """Return the tables of the page, by their places in page.html; some need a comparison."""
    return {
        **(_compared(findings) if findings.compared["table"] else {"systems": _systems(findings)}),
        **_foreground(findings),
        "groups": _groups(findings),
        "left_out": _left_out(findings),
        "provenance": _provenance(findings),
        "times": _times(findings),
    }


SYSTEMS = "CorLoc of every system"


def _systems(findings: RunFindings) -> Table:
    columns: text.Columns = {**text.CORLOC_COLUMNS, "method": itemgetter("title")}
    lines = table_lines(columns, findings.corloc)
    other = text.taken_from(findings.stages)
    return Table(SYSTEMS, lines, text.protocol_sentence(findings.config, other))


def _compared(findings: RunFindings) -> dict[str, Table]:
    rows, unseen = findings.compared["table"], findings.compared["unseen"]
    compared = {
        "systems": Table(
            SYSTEMS,
            table_lines(comparison.MAIN_COLUMNS, rows),
            comparison.notes(findings.config),
        ),
        "protocols": Table(
            "CorLoc under other protocols",
            table_lines(comparison.PROTOCOL_COLUMNS, rows),
            comparison.protocol_notes(rows[0]["n_single"]),
        ),
    }
    if unseen:
        lines = table_lines(comparison.UNSEEN_COLUMNS, unseen)
        compared["unseen"] = Table("CorLoc on seen and unseen classes", lines)
    return compared


def _foreground(findings: RunFindings) -> dict[str, Table]:
    """Return how much each block of what the foreground reads moves it, if the run has one."""
    strengths = findings.stages["foreground"].get("strengths")
    if not strengths:
        return {}
    lines = [(name, f"{value:.3f}") for name, value in strengths.items()]
    note = (
        "Standard deviations of the share of a cell that is foreground, which each block of values "
        "alone accounts for in the read-out that all classes share (inner: the paper's equation 1 "
        "at an inner layer)."
    )
    return {"foreground": Table("What the foreground reads", [("values", "weight"), *lines], note)}


def _groups(findings: RunFindings) -> Table:
    """Return CorLoc by the size of the object, and by what the classifier says, of each method."""
    headings = {"area": counts.AREA_GROUPS, "recognised": counts.RECOGNISED}
    there = {by: counts.groups(findings.counts, by) for by in headings}

    def cell(method: str, by: str, name: str) -> str:
        row = there[by][method].get(name)
        return (
            f"{100 * row['n_correct'] / row['n_images']:.1f} ({row['n_images']:,})" if row else ""
        )

    places = [(by, name) for by, names in headings.items() for name in names]
    lines = [
        (catalogue.title(method), *(cell(method, *place) for place in places))
        for method in in_order(there["area"])
    ]
    note = "Percent of the images whose box is right, and in brackets how many images there are."
    head = ("method", *(name for _, name in places))
    return Table("CorLoc by size and recognition", [head, *lines], note)


def _left_out(findings: RunFindings) -> Table:
    """Return how many images take no part, by reason, and how many are copies of others."""
    audit, copies = findings.audit, findings.audit["duplicates"]
    images = dict(audit["left_out"])
    if audit["not_drawn"]:
        images["not drawn (dataset.n_images)"] = audit["not_drawn"]
    other = text.taken_from(findings.stages)
    if other and other["images_unknown"]:
        images["judged by the predicted class alone: the network lacks theirs"] = other[
            "images_unknown"
        ]
    if copies["images"]:
        kept = f"kept in one set; {copies['across_classes']:,} across classes"
        images[f"copies of another image ({kept})"] = copies["images"]
    by_count = sorted(findings.errors.items(), key=lambda error: (-error[1], error[0]))
    for reason, count in by_count[:MOST_REASONS]:
        images[f"error: {reason}"] = count
    if others := sum(count for _, count in by_count[MOST_REASONS:]):
        images["error: others"] = others
    lines = [(reason, f"{count:,}") for reason, count in images.items()]
    return Table("What was left out", [("reason", "images"), *lines])


def _provenance(findings: RunFindings) -> Table:
    record, config, audit = findings.record, findings.config, findings.audit
    stages = findings.stages
    other = text.taken_from(stages)
    listing = str(stages["manifest"]["of"].get("data set's listing"))
    versions = {**record["versions"], **record["packages"]}
    lines = [
        ("command", " ".join(["python", *stages["sensitivity"]["command"]])),
        ("data set", f"{config.dataset.layout}, {config.dataset.root}"),
        (
            "its listing, images, classes",
            ", ".join([listing, audit["images_hash"], audit["classes_hash"]]),
        ),
        *(
            [("fitted run", f"{other['run']}, {other['url']}, config {other['config_hash']}")]
            if other
            else []
        ),
        ("network", config.classifier.source),
        ("its weights", findings.localizer.weights),
        ("config", record["config_hash"]),
        ("git commit", record["git_commit"] or "none: not made in a checkout"),
        ("python", record["python"]),
        ("packages", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
    return Table("Provenance", [("what", "which"), *lines])


def _times(findings: RunFindings) -> Table:
    lines = [
        (
            name,
            f"{datetime.fromisoformat(facts['begun']):%Y-%m-%d %H:%M:%S %Z}",
            f"{facts['seconds']:,.1f}",
            f"{facts['attempts']}",
        )
        for name, facts in findings.stages.items()
    ]
    return Table("Stages of the run", [("stage", "begun", "seconds", "attempts"), *lines])
