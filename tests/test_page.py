"""The report: what it counts is what the run says, and a real browser shows it."""

import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import vl_convert
from conftest import copied
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from sensloc.methods import catalogue
from sensloc.report.page import charts, gallery
from sensloc.report.page.series import charted_methods
from sensloc.stages.views.report import report
from sensloc.store.run import RunDir, RunError

# --------------------------------------------------------------------------- parts


def test_every_chart_is_vega(compared: RunDir) -> None:
    page = compared.read("report.html").decode()
    (charts_json,) = re.findall(r'<script .*? id="chart-data">(.*?)</script>', page)
    specs = json.loads(charts_json)
    assert set(specs) == {
        *("speed", "iou", "sizes", "classes", "weights", "labels", "reliability"),
    }
    for spec in specs.values():
        assert vl_convert.vegalite_to_vega(spec)["marks"]


def test_an_overlay_is_clear_where_the_map_is_nothing() -> None:
    data = gallery.overlay(np.array([[0.0, 1.0], [0.5, 0.0]]))
    with Image.open(io.BytesIO(data)) as image:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
    assert alpha.tolist() == [[0, 216], [108, 0]]


def test_the_weights_stand_where_they_are_in_the_image() -> None:
    coefficients = np.zeros((4, 9))
    coefficients[2, 5] = 7.0  # of the right edge: second row, last column
    spec = charts.weights(coefficients)
    rows = next(iter(spec["datasets"].values())) if "datasets" in spec else spec["data"]["values"]
    assert [row for row in rows if row["weight"]] == [
        {"edge": "right edge", "x": 2, "y": 1, "weight": 7.0}
    ]


def test_what_can_be_told_apart_is_shown_in_one_order() -> None:
    every = catalogue.with_twins(catalogue.METHODS)
    assert set(charted_methods(every)) == set(catalogue.DRAWN)
    assert len(charted_methods(every)) <= charts.MOST
    assert charted_methods(every) == charted_methods(every[::-1])
    assert charted_methods(["sensitivity", "constant_tuned"]) == ["constant_tuned", "sensitivity"]


def test_methods_by_both_classes_can_be_told_apart_too() -> None:
    own = catalogue.of_run(("gradient", "foreground", "foreground_second"))
    twins = [name + catalogue.BY_PREDICTED for name in own if catalogue.entry(name).columns]
    charted = charted_methods([*twins, *own])
    assert len(charted) == charts.MOST
    assert charted[-1] == "foreground_second_predicted"
    assert catalogue.title(charted[-1]) == f"predicted class: {catalogue.title(charted[-4])}"
    assert len({catalogue.title(name) for name in charted}) == len(charted)


def test_what_a_data_set_says_is_text(small_run: RunDir, tmp_path: Path) -> None:
    """A class named like a program, in the table and in the gallery."""
    run = copied(small_run, tmp_path / "run")
    evil = "</script><script>document.title='taken'</script><b>x"
    for stage in ("sensitivity", "predictions"):
        for file in run.files(stage):
            rows = pq.read_table(file)
            at = rows.column_names.index("class_name")
            renamed = rows.set_column(at, "class_name", pa.array([evil] * len(rows)))
            pq.write_table(renamed.replace_schema_metadata(rows.schema.metadata), file)
    report(run)
    page = run.read("report.html").decode()
    assert "document.title=" in page
    assert "<script>document.title" not in page


def test_an_unfinished_run_has_none(small_run: RunDir, tmp_path: Path) -> None:
    run = copied(small_run, tmp_path / "run")
    record = run.facts()
    del record["stages"]["localizer"]
    run.write("run.json", json.dumps(record))
    with pytest.raises(RunError, match="localizer is not complete"):
        report(run)


def test_the_tiles_of_a_run_with_errors_that_was_killed_at_the_end_of_a_stage(
    small_run: RunDir, tmp_path: Path
) -> None:
    """Its last attempt found all maps made; the manifest's errors are the table's too."""
    run = copied(small_run, tmp_path / "run")
    record, audit = run.facts(), json.loads(run.read("audit.json"))
    record["stages"]["sensitivity"] |= {"images_per_s": None, "errors": 5}
    run.write("run.json", json.dumps(record))
    run.write("audit.json", json.dumps(audit | {"errors": 4}))
    report(run)
    page = run.read("report.html").decode()
    assert "<dt>sensitivity maps</dt><dd>all <small>made by an earlier attempt</small></dd>" in page
    assert "<dt>with an error</dt><dd>5</dd>" in page


def test_an_image_that_is_gone_is_said(small_run: RunDir, tmp_path: Path) -> None:
    run = copied(small_run, tmp_path / "run")
    for file in run.files("sensitivity"):
        rows = pq.read_table(file)
        uris = pa.array([f"{tmp_path}/gone.png"] * len(rows))
        moved = rows.set_column(rows.column_names.index("uri"), "uri", uris)
        pq.write_table(moved, file)
    report(run)
    assert "gone.png" in run.read("report.html").decode()


# --------------------------------------------------------------------------- a real browser

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-quic"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    paths = [path for name in ("chromium", "google-chrome") if (path := shutil.which(name))]
    if not paths:
        pytest.skip("no browser: neither chromium nor google-chrome is on PATH")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=paths[0], args=list(FLAGS))
        yield started
        started.close()


class Visit:
    """A page opened from disk, and what it said and asked for."""

    def __init__(self, browser: Browser, file: str, scheme: str = "light", width: int = 1200):
        context = browser.new_context(
            color_scheme=scheme, viewport={"width": width, "height": 900}, offline=True
        )
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page: Page = context.new_page()
        self.page.on("console", self._note_error)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url[:60]))
        self.page.goto(f"file://{file}")
        self.page.wait_for_selector("html[data-ready=yes]", state="attached")

    def _note_error(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def cards(self) -> list[str]:
        return self.page.locator("#cards .caption").all_inner_texts()


@pytest.fixture(params=["small_run", "compared"])
def file(request: pytest.FixtureRequest) -> str:
    run: RunDir = request.getfixturevalue(request.param)
    return str(run.path("report.html"))


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 390)])
def test_it_opens_without_a_word_or_a_request(
    browser: Browser, file: str, scheme: str, width: int
) -> None:
    assert Path(file).stat().st_size < 10_000_000
    visit = Visit(browser, file, scheme, width)
    assert visit.errors == []
    elsewhere = [url for url in visit.requests if not url.startswith(("file:", "data:", "blob:"))]
    assert elsewhere == []
    page = visit.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    drawn = page.locator(".chart svg.marks")
    assert drawn.count() == page.locator(".chart").count() >= 5
    for i in range(drawn.count()):
        assert drawn.nth(i).locator("path").count() > 5
        assert drawn.nth(i).get_attribute("aria-label")
    ink, back = (
        page.evaluate(f"getComputedStyle(document.body).{name}.match(/[0-9]+/)[0]")
        for name in ("color", "backgroundColor")
    )
    assert (int(ink) < 60 < 200 < int(back)) if scheme == "light" else (int(back) < 60 < int(ink))


def test_the_gallery_filters_and_sorts(browser: Browser, file: str) -> None:
    page = (visit := Visit(browser, file)).page
    total = int(page.inner_text("#g-count").split()[0])
    assert total == 50
    assert len(visit.cards()) == 24
    page.click("#g-more")
    assert len(visit.cards()) == 48
    page.select_option("#g-hit", "miss")
    misses = int(page.inner_text("#g-count").split()[0])
    page.select_option("#g-hit", "hit")
    hits = int(page.inner_text("#g-count").split()[0])
    assert hits + misses == total
    assert all("hit" in text for text in visit.cards())
    page.select_option("#g-hit", "")
    page.select_option("#g-order", "low")
    ious = [float(re.search(r"IoU ([\d.]+)", text)[1]) for text in visit.cards()]
    assert ious == sorted(ious)
    name = page.locator("#g-class option").nth(1).inner_text()
    page.select_option("#g-class", name)
    assert visit.cards()
    assert all(text.startswith(name) for text in visit.cards())
    page.select_option("#g-class", "")
    before = visit.cards()
    page.select_option("#g-method", label=catalogue.title("constant_tuned"))
    assert visit.cards() != before
    assert page.locator("#cards .card").first.locator("img").count() == 1
    page.select_option("#g-map", "foreground")
    assert page.locator("#cards .card").first.locator("img").count() == 2
    assert page.evaluate(
        "[...document.querySelectorAll('#cards img')].every(i => i.complete && i.naturalWidth > 0)"
    )
    assert visit.errors == []


def test_the_boxes_of_a_card_are_the_runs(browser: Browser, small_run: RunDir) -> None:
    page = Visit(browser, small_run.path("report.html")).page
    page.locator("#cards .card").first.click()
    image_id = page.locator("#closer .note").inner_text()
    rows = pq.read_table(small_run.path("predictions")).to_pylist()
    (row,) = (r for r in rows if r["image_id"] == image_id and r["method"] == "sensitivity")
    drawn = page.locator("#closer rect.predicted").first
    x0, y0, width, height = (float(drawn.get_attribute(k)) for k in ("x", "y", "width", "height"))
    assert [x0, y0, x0 + width, y0 + height] == pytest.approx(row["box"], abs=2e-4)
    iou = float(re.search(r"IoU ([\d.]+)", page.locator("#closer").inner_text())[1])
    assert iou == pytest.approx(row["iou"], abs=0.006)  # the page rounds twice


def test_it_works_from_the_keyboard(browser: Browser, small_run: RunDir) -> None:
    page = (visit := Visit(browser, small_run.path("report.html"))).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator("#cards .card").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#closer").evaluate("d => d.open")
    first = page.locator("#closer .note").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#closer .note").inner_text() != first
    page.keyboard.press("ArrowLeft")
    assert page.locator("#closer .note").inner_text() == first
    page.keyboard.press("Escape")
    assert not page.locator("#closer").evaluate("d => d.open")
    assert visit.errors == []


def test_classes_are_searched_and_ordered(browser: Browser, small_run: RunDir) -> None:
    page = (visit := Visit(browser, small_run.path("report.html"))).page
    labels = page.locator('#chart-classes [aria-label^="Y-axis"] .role-axis-label text')
    rows = [r for r in pq.read_table(small_run.path("corloc")).to_pylist() if r["scope"] == "class"]
    share = {(r["method"], r["class_name"] or r["wnid"]): round(r["corloc"], 2) for r in rows}

    def names() -> list[str]:
        """Return the classes from top to bottom, as they are seen."""
        page.wait_for_timeout(300)
        places = labels.evaluate_all(
            "all => all.map(e => [e.getBoundingClientRect().y, e.textContent])"
        )
        return [text for _, text in sorted(places)]

    def shares(method: str) -> list[float]:
        return [share[method, name] for name in names()]

    every = names()
    assert len(every) == 10
    assert shares("sensitivity") == sorted(shares("sensitivity"))
    page.select_option("#class-order", "name")
    assert names() == sorted(every)
    page.select_option("#class-order", "best")
    assert shares("sensitivity") == sorted(shares("sensitivity"), reverse=True)
    page.select_option("#class-method", label=catalogue.title("constant_mean"))
    assert shares("constant_mean") == sorted(shares("constant_mean"), reverse=True)
    page.fill("#class-search", every[0])
    assert every[0] in names()
    assert len(names()) < len(every)
    assert visit.errors == []


def test_the_theme_can_be_turned(browser: Browser, small_run: RunDir) -> None:
    page = (visit := Visit(browser, small_run.path("report.html"), "dark")).page
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    page.wait_for_timeout(500)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    assert visit.errors == []


def test_the_table_sorts(browser: Browser, compared: RunDir) -> None:
    page = Visit(browser, compared.path("report.html")).page
    column = page.locator("#methods table").first.locator("tbody tr td:nth-child(2)")

    def values() -> list[float]:
        return [float(text.split()[0]) for text in column.all_inner_texts()]

    page.locator("#methods table").first.locator("thead button").nth(1).click()
    assert values() == sorted(values(), reverse=True)
    page.locator("#methods table").first.locator("thead button").nth(1).click()
    assert values() == sorted(values())
