"""Every SQL and Python block of the pages is run on a real run's output; links lead somewhere."""

import re
import shutil
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import ROOT, copied
from pycocotools import mask
from pycocotools.coco import COCO

from sensloc.stages.views.coco import coco
from sensloc.store.run import RunDir

PAGES = sorted(
    str(page.relative_to(ROOT))
    for pattern in ("*.md", "docs/**/*.md", "cluster/*.md", "benchmarks/**/*.md")
    for page in ROOT.glob(pattern)
)


def blocks(language: str) -> list[tuple[str, str]]:
    """Return the pages' blocks in that language, each with its page and number."""
    return [
        (f"{page} {number}", block)
        for page in PAGES
        for number, block in enumerate(
            re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)
        )
    ]


SQL = blocks("sql")
PYTHON = [(page, block) for page, block in blocks("python") if "your_maps" not in page]
"""The blocks that stand alone: those of your_maps.md are run in their order, `test_given.py`."""


@pytest.fixture(scope="module")
def folder(compared: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the folder where the commands are typed: it holds runs, a few rows with errors."""
    folder = tmp_path_factory.mktemp("docs")
    run = copied(compared, folder / "runs/mine")
    coco(run)
    for file in run.files("sensitivity")[:1]:
        rows = pq.read_table(file)
        errors = [
            f"{uri}: cannot decode JPEG: {i} bytes"
            for i, uri in enumerate(rows["uri"][:3].to_pylist())
        ]
        column = pa.array(errors + [None] * (len(rows) - 3), pa.string())
        at = rows.column_names.index("error")
        pq.write_table(rows.set_column(at, "error", column), file)
    for name in ("own", "shared"):
        (folder / "runs" / name).symlink_to(folder / "runs/mine")
    shutil.copy(pq.read_table(file)["uri"][5].as_py(), folder / "photo.jpg")
    return folder


@pytest.fixture
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_blocks_are_found() -> None:
    assert SQL
    assert PYTHON


@pytest.mark.usefixtures("_there")
@pytest.mark.parametrize("block", [pytest.param(block, id=name) for name, block in SQL])
def test_sql_is_answered(block: str) -> None:
    rows = duckdb.sql(block).fetchall()
    assert rows
    assert all(len(row) >= 2 for row in rows)


@pytest.mark.usefixtures("_there")
def test_errors_are_counted_by_kind() -> None:
    (block,) = (block for _, block in SQL if "error IS NOT NULL" in block)
    assert duckdb.sql(block).fetchall() == [("cannot decode JPEG: N bytes", 3)]


@pytest.mark.usefixtures("_there")
@pytest.mark.parametrize("block", [pytest.param(block, id=name) for name, block in PYTHON])
def test_python_runs(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "pyspark" in block:
        pytest.importorskip("pyspark", reason="Spark is 400 MB: pip install pyspark to run this")
    exec(compile(block, "page", "exec"), {"__name__": "page"})
    assert capsys.readouterr().out.strip()


def test_cocos_tools_see_the_runs_boxes(folder: Path, compared: RunDir) -> None:
    """Their IoU over their reading of both files is that of the run."""
    truth = COCO(str(folder / "runs/mine/coco/truth.json"))
    rows = pq.read_table(compared.path("compare/predictions")).to_pylist()
    ious = {r["image_id"]: r["iou"] for r in rows if r["method"] == "sensitivity"}
    results = truth.loadRes(str(folder / "runs/mine/coco/sensitivity.json"))
    assert len(truth.getImgIds()) == len(results.getAnnIds())
    for number in truth.getImgIds():
        (result,) = results.loadAnns(results.getAnnIds(imgIds=[number]))
        boxes = [known["bbox"] for known in truth.loadAnns(truth.getAnnIds(imgIds=[number]))]
        best = mask.iou([result["bbox"]], boxes, [0] * len(boxes)).max()
        assert best == pytest.approx(ious[truth.imgs[number]["file_name"]], abs=1e-4)


def test_the_citation_is_of_this_version() -> None:
    import sensloc

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == sensloc.__version__
    assert citation["cff-version"] == "1.2.0"
    assert citation["references"]


@pytest.mark.parametrize("page", PAGES)
def test_links_within_the_project_lead_somewhere(page: str) -> None:
    here = ROOT / page
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", here.read_text()):
        assert (here.parent / target).exists(), target
