"""The figure shows hits and misses alike; the tables are well formed and claim what they may."""

import io
import random

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from sensloc.config import Config
from sensloc.report.sheet import SheetImage, choose, contact_sheet
from sensloc.report.text import corloc_markdown, corloc_text, pace, protocol_sentence, summary
from sensloc.store import tables

# ------------------------------------------------------------------------------- choice


def predictions(hits: int, misses: int, classes: int) -> pa.Table:
    """Rows of one method, in no order."""
    rows = [
        {"image_id": f"image_{i}", "wnid": f"n{i % classes}", "correct": i < hits}
        for i in range(hits + misses)
    ]
    return pa.Table.from_pylist(random.Random(0).sample(rows, len(rows)))


def chosen(rows: pa.Table, seed: int = 0, n: int = 10) -> list[dict[str, object]]:
    by_id = {row["image_id"]: row for row in rows.to_pylist()}
    return [by_id[name] for name in choose(rows, seed, n)]


def test_the_choice_is_a_function_of_the_seed_alone():
    rows = predictions(50, 50, 20)
    assert choose(rows, 0) == choose(rows, 0) == choose(rows.take(pa.array(range(99, -1, -1))), 0)
    assert len({tuple(choose(rows, seed)) for seed in range(10)}) == 10


@pytest.mark.parametrize("seed", range(5))
def test_hits_and_misses_alternate_and_classes_differ(seed: int):
    drawn = chosen(predictions(50, 50, 20), seed)
    assert [row["correct"] for row in drawn] == [True, False] * 5
    assert len({row["wnid"] for row in drawn}) == 10
    assert len({row["image_id"] for row in drawn}) == 10


@pytest.mark.parametrize(
    ("hits", "misses", "shown"), [(2, 30, 2), (30, 2, 8), (0, 30, 0), (30, 0, 10)]
)
def test_where_one_kind_runs_out_the_other_goes_on(hits: int, misses: int, shown: int):
    drawn = chosen(predictions(hits, misses, 15))
    assert len({row["image_id"] for row in drawn}) == 10
    assert sum(bool(row["correct"]) for row in drawn) == shown


def test_few_classes_are_shown_alike():
    shown = [row["wnid"] for row in chosen(predictions(60, 60, 3), n=9)]
    assert sorted(shown.count(f"n{i}") for i in range(3)) == [3, 3, 3]


@pytest.mark.parametrize("n", [0, 1, 3])
def test_fewer_images_than_asked_for_are_all_shown(n: int):
    rows = predictions(n, 0, 2) if n else predictions(1, 0, 1).slice(0, 0)
    assert sorted(choose(rows, 0)) == sorted(rows["image_id"].to_pylist())


# ------------------------------------------------------------------------------- sheet


def example(title: str = "tench, Tinca tinca", aspect: float = 1.5) -> SheetImage:
    rng = np.random.default_rng(0)
    return SheetImage(
        title=title,
        pixels=rng.integers(0, 256, (64, 64, 3), np.uint8),
        aspect=aspect,
        maps={"sensitivity map": rng.random((14, 14)).astype(np.float32)},
        truth=np.array([[0.1, 0.1, 0.5, 0.6], [0.5, 0.5, 1, 1]]),
        predicted=np.array([0.0, 0.2, 0.6, 0.6]),
        iou=0.47,
    )


def height(examples: list[SheetImage]) -> int:
    image = Image.open(io.BytesIO(contact_sheet(examples)))
    image.load()
    assert image.format == "PNG"
    assert image.width == 1210
    return image.height


def test_the_sheet_is_a_png_that_grows_with_its_rows():
    none, two, three = (height([example()] * n) for n in (0, 2, 3))
    assert none == two < three


def test_any_class_name_can_be_drawn():
    titles = ["", "a $ sign", "$x^$ and $y_$", "crème brûlée", "\\frac"]
    assert height([example(title, aspect) for title in titles for aspect in (0.2, 6)]) > 300


def test_the_sheet_shows_the_pixels_the_map_and_both_boxes():
    image = Image.open(io.BytesIO(contact_sheet([example()]))).convert("RGB")
    sheet = np.asarray(image).astype(int)

    def shown(colour: tuple[int, int, int]) -> int:
        return int((np.abs(sheet - colour).sum(-1) < 30).sum())

    assert shown((0x1B, 0x9E, 0x3A)) > 500  # ground truth
    assert shown((0xD6, 0x27, 0x28)) > 300  # prediction
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 1000


# ------------------------------------------------------------------------------- tables

METHODS = ["constant_mean", "constant_tuned", "sensitivity", "sensitivity_calibrated"]


def config(**more: object) -> Config:
    return Config.model_validate(
        {
            "name": "mini",
            "output": "/out",
            "dataset": {"layout": "voc", "root": "/images"},
            "classifier": {"source": "timm", "name": "resnet18"},
            **more,
        }
    )


@pytest.fixture
def corloc() -> pa.Table:
    def row(method: str, scope: str, value: float, wnid: str | None = None) -> dict[str, object]:
        return {
            "method": method, "scope": scope, "wnid": wnid, "class_name": wnid,
            "n_images": 1234, "n_correct": 600, "corloc": value,
            "ci_low": value - 2.06, "ci_high": value + 1.94, "headroom": value - 28,
        }  # fmt: skip

    rows = []
    for i, method in enumerate(METHODS):
        rows += [row(method, "overall", 40.0 + i), row(method, "class mean", 50.0 + i)]
        rows += [row(method, "class", 99.9, wnid) for wnid in ("n01", "n02")]
    return pa.Table.from_pylist(rows, tables.CORLOC)


def cells(document: str) -> list[list[str]]:
    """The rows of its Markdown table."""
    lines = [line for line in document.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in lines)
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


def test_the_markdown_table_is_well_formed(corloc: pa.Table):
    header, rule, *rows = cells(corloc_markdown(corloc, config()))
    assert {len(row) for row in [header, rule, *rows]} == {6}
    assert all(set(cell) <= set(":-") and len(cell) >= 3 for cell in rule)
    assert [row[0] for row in rows] == METHODS
    assert rows[0][1:5] == ["40.0 [37.9, 41.9]", "12", "50.0 [47.9, 51.9]", "600 / 1,234"]
    assert "99.9" not in str(rows), "classes have a table of their own"


def test_the_papers_numbers_stand_in_its_own_rows_only(corloc: pa.Table):
    _, _, *rows = cells(corloc_markdown(corloc, config()))
    assert {row[0]: row[5] for row in rows} == {
        "constant_mean": "12.34", "constant_tuned": "",
        "sensitivity": "82.76", "sensitivity_calibrated": "",
    }  # fmt: skip


def test_the_document_says_whose_it_is_and_what_its_numbers_mean(corloc: pa.Table):
    document = corloc_markdown(corloc, config(evaluate={"iou": 0.7}), errors=1234)
    assert document.startswith("# mini: CorLoc\n\n|")
    assert all(part in document for part in ("IoU >= 0.7", "GT-known", "1,234"))
    assert "GT-known" not in protocol_sentence(config(sensitivity={"label": "predicted"}))


def test_the_text_has_the_same_cells_in_columns(corloc: pa.Table):
    lines = corloc_text(corloc, config()).splitlines()[:5]
    for line, row in zip(lines[1:], cells(corloc_markdown(corloc, config()))[2:], strict=True):
        assert line.split() == " ".join(row).split()
    ends = [line.index("]") for line in lines[1:]]
    assert len(set(ends)) == 1


def test_the_summary_of_a_finished_run(corloc: pa.Table):
    facts = {
        "stages": {
            "manifest": {
                "seconds": 2, "images": 2299, "classes": 20, "splits": {"test": 287, "train": 1724},
            },
            "sensitivity": {
                "seconds": 0, "rows": 2299, "errors": 3, "top1": {"test": 71.25},
                "images_per_s": 22.04,
            },
        }
    }  # fmt: skip
    words = summary(corloc, config(), facts, "/out")
    assert "2,299 images of 20 classes (287 test, 1,724 train) in 2 s" in words
    assert all(part in words for part in ("3 errors", "22.0 images/s", "71.2", "/out"))
    assert corloc_text(corloc, config()) in words


def test_a_stage_that_found_all_maps_made_has_no_pace():
    assert pace({"images_per_s": 1234.56}) == "1,234.6 images/s"
    assert pace({"images_per_s": None}) == "all made by an earlier attempt"
