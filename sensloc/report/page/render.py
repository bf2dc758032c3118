"""A run's findings -> one HTML file with everything in it: style, scripts, photographs."""

from datetime import datetime
from importlib.resources import files

import altair as alt
import vl_convert
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

import sensloc
from sensloc.methods import catalogue
from sensloc.report.page.findings import RunFindings
from sensloc.report.page.series import chart_specs, speed_key
from sensloc.report.page.words import sentences, tables, tiles

SECTIONS = (
    ("result", "Result", None),
    ("methods", "Systems", None),
    ("speed", "Speed", "speed"),
    ("curves", "Tightness", None),
    ("classes", "Classes", None),
    ("map", "The map", None),
    ("labels", "Few boxes", "labels"),
    ("confidence", "Confidence", None),
    ("gallery", "Photographs", None),
    ("left-out", "Left out", None),
    ("provenance", "Provenance", None),
)
"""Each section's id, its name, and the chart without which it is left out."""


def render(findings: RunFindings, now: datetime) -> str:
    """Return the whole page; what a data set says is escaped."""
    html, css, js = (
        files("sensloc.report.page").joinpath(f"page.{kind}").read_text("utf-8")
        for kind in ("html", "css", "js")
    )
    version = ".".join(alt.SCHEMA_VERSION.split(".")[:2])
    library = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", version)
    charts = chart_specs(findings)
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(html)
    return template.render(
        run=findings.config.name,
        sections=[(i, name) for i, name, chart in SECTIONS if chart in (None, *charts)],
        sentences=sentences(findings),
        tiles=tiles(findings),
        tables=tables(findings),
        charts=charts,
        speed_key=speed_key(findings),
        methods=[catalogue.title(name) for name in findings.charted],
        reference=catalogue.title(catalogue.MAIN),
        cards=findings.cards,
        maps=list(findings.cards[0]["maps"]) if findings.cards else [],
        first_errors=findings.audit["first_errors"],
        made=f"sensloc {sensloc.__version__} · {now:%Y-%m-%d %H:%M %Z}".strip(),
        css=Markup(css),
        js=Markup(js),
        library=Markup(library),
    )
