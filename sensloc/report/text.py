"""The tables that people read: Markdown for files, plain text for a terminal."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sensloc.config import Config
from sensloc.methods import catalogue

PAPER = catalogue.PAPER
"""Ebrahimpour & Noelle, Table 1, in percent: their images, their protocol."""


def main_lines(table: pa.Table) -> list[list[str]]:
    """The cells of ``HEADER``, of the CorLoc table."""
    wanted = table.filter(pc.is_in(table["scope"], pa.array(["overall", "class mean"])))
    by_method: dict[str, dict[str, Any]] = {}
    for row in wanted.to_pylist():
        by_method.setdefault(row["method"], {})[row["scope"]] = row
    return [
        [
            method,
            _share(scopes["overall"]),
            _share(scopes["class mean"]),
            f"{scopes['overall']['n_correct']:,} / {scopes['overall']['n_images']:,}",
            f"{PAPER[method]:.2f}" if method in PAPER else "",
        ]
        for method, scopes in by_method.items()
    ]


def _share(row: dict[str, Any]) -> str:
    return f"{row['corloc']:.1f} [{row['ci_low']:.1f}, {row['ci_high']:.1f}]"


HEADER = ["method", "CorLoc %", "class mean %", "images right", "paper, ImageNet, its protocol"]


def protocol(config: Config) -> str:
    """One sentence: what the numbers mean."""
    label = (
        "the true class (GT-known)"
        if config.sensitivity.label == "truth"
        else "the predicted class"
    )
    return (
        f"Test split, IoU >= {config.evaluate.iou:g} with any ground-truth box, continuous "
        f"coordinates; maps of {label}; 95 % bootstrap intervals over images."
    )


def markdown(table: pa.Table, config: Config, errors: int = 0) -> str:
    """``table.md``: one row per method, and how many test images had errors."""
    body = grid([HEADER, *main_lines(table)])
    not_counted = f" {errors:,} test images with errors are not counted." if errors else ""
    return f"# {config.name}: CorLoc\n\n{body}\n\n{protocol(config)}{not_counted}\n"


def text(table: pa.Table, config: Config) -> str:
    """The same for a terminal, in columns."""
    return "\n".join([aligned([HEADER, *main_lines(table)]), "", protocol(config)])


def grid(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the header first; all columns but the first to the right."""
    rule = ["---", *["---:"] * (len(lines[0]) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (lines[0], rule, *lines[1:]))


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """The same as plain text."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def pace(made: dict[str, Any]) -> str:
    """How fast the sensitivity stage was: null where an attempt before had made every map."""
    rate = made["images_per_s"]
    return "all made by an earlier attempt" if rate is None else f"{rate:,.1f} images/s"


def summary(table: pa.Table, config: Config, facts: dict[str, Any], url: str) -> str:
    """What a finished run says last.

    Args:
        table: of CorLoc.
        config: of the run.
        facts: the content of ``run.json``.
        url: of the run directory.
    """
    stages = facts["stages"]
    made = stages["sensitivity"]
    total = sum(stage["seconds"] for stage in stages.values())
    splits = ", ".join(f"{n:,} {name}" for name, n in stages["manifest"]["splits"].items())
    lines = [
        f"{config.name}: {stages['manifest']['images']:,} images of "
        f"{stages['manifest']['classes']:,} classes ({splits}) in {total:.0f} s",
        f"sensitivity maps: {pace(made)}, {made['errors']} errors",
        "classifier top-1: " + ", ".join(f"{v:.1f} % of {k}" for k, v in made["top1"].items()),
        "",
        text(table, config),
        "",
        f"tables, figure and linear map: {url}",
        f"  open {url}/report.html; {url}/examples.png and table.md are parts of it",
    ]
    return "\n".join(lines)
