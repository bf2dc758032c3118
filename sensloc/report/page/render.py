"""Values -> one HTML file with everything in it: style, script, charts' library, photographs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from typing import Any

import altair as alt
import vl_convert
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from sensloc.report.page.charts import Spec
from sensloc.report.page.gallery import Card

Cells = Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        label: what it is of, for those who hear the page.
        header: one cell per column.
        lines: of cells, a line each.
        note: what stands below it.
        strong: the first cell of the line that is set apart.
    """

    label: str
    header: Cells
    lines: Sequence[Cells]
    note: str = ""
    strong: str | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The lines, as the template wants them."""
        return [{"cells": cells, "strong": cells[0] == self.strong} for cells in self.lines]


@dataclass(frozen=True)
class Page:
    """What the page says, in its order.

    Attributes:
        title: name of the run.
        value: CorLoc of the main method, as shown.
        lead: what that means, in a sentence or two.
        tiles: name, value and note of what is good to know at once.
        methods: every system.
        protocols: the same, judged otherwise; None where there is no comparison.
        shown: titles of the methods in the charts and the gallery, in the order of their looks.
        main: the one that the gallery begins with.
        charts: by name, see page.html; those named there with an ``if`` may be missing.
        speeds: the methods of the chart of that name, by their numbers.
        unseen: classes that were not learned on; None where there is no comparison.
        confidence: how good it is.
        cards: of the gallery.
        gallery: how they were drawn.
        left_out: reasons and counts.
        first_errors: the first few, in full.
        provenance: what the run is made of.
        config: the whole of it.
        times: of the stages.
        version: of sensloc.
        made: when.
    """

    title: str
    value: str
    lead: str
    tiles: Sequence[tuple[str, ...]]
    methods: Table
    protocols: Table | None
    shown: Sequence[str]
    main: str
    charts: Mapping[str, Spec]
    speeds: Sequence[str]
    unseen: Table | None
    confidence: str
    cards: Sequence[Card]
    gallery: str
    left_out: Table
    first_errors: Sequence[str]
    provenance: Table
    config: str
    times: Table
    version: str
    made: str


SECTIONS = (
    ("result", "Result", None),
    ("methods", "Systems", None),
    ("speed", "Speed", "speed"),
    ("curves", "Tightness", None),
    ("classes", "Classes", None),
    ("map", "The map", None),
    ("labels", "Few boxes", "labels"),
    ("confidence", "Confidence", "reliability"),
    ("gallery", "Photographs", None),
    ("left-out", "Left out", None),
    ("provenance", "Provenance", None),
)
"""Id, name, and the chart without which there is none."""


def render(page: Page) -> str:
    """The whole page; what a data set says is escaped."""
    html, css, js = (
        files("sensloc.report.page").joinpath(f"page.{kind}").read_text("utf-8")
        for kind in ("html", "css", "js")
    )
    version = ".".join(alt.SCHEMA_VERSION.split(".")[:2])
    library = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", version)
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(html)
    return template.render(
        {field.name: getattr(page, field.name) for field in fields(page)},
        sections=[(i, name) for i, name, chart in SECTIONS if chart in (None, *page.charts)],
        css=Markup(css),
        js=Markup(js),
        library=Markup(library),
    )
