"""A run directory: what is recorded as complete is complete, on any file system."""

import json
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from sensloc.config import Config
from sensloc.run import RunDir, RunError


def config(output: str, **more: object) -> Config:
    return Config.model_validate(
        {
            "name": "a",
            "output": output,
            "dataset": {"layout": "voc", "root": "/images"},
            "classifier": {"source": "timm", "name": "resnet18"},
            **more,
        }
    )


@pytest.fixture(params=["local", "memory"])
def output(request, tmp_path: Path) -> str:
    root = str(tmp_path) if request.param == "local" else f"memory:/{tmp_path}"
    return f"{root}/runs/a"


@pytest.fixture
def run(output: str) -> RunDir:
    return RunDir.open(config(output))


def test_a_new_run_has_nothing(run: RunDir):
    assert run.facts() == {}
    assert run.files("manifest") == []
    assert not run.finished("manifest")
    assert not run.exists("manifest")


def test_what_is_written_is_read_whole(run: RunDir):
    for content in (b"first, and long", b"second", b""):
        run.write("deep/er/table.md", content)
        assert run.read("deep/er/table.md") == content
    run.write("text.json", "Größe")
    assert run.read("text.json").decode() == "Größe"
    names = [Path(found).name for found in run.filesystem.find(run.path(""))]
    assert sorted(names) == ["table.md", "text.json"], "no part is left"


def test_arrow_and_fsspec_see_the_same_files(run: RunDir):
    run.write("plain.txt", "hello")
    assert run.arrow.open_input_stream(run.path("plain.txt")).read() == b"hello"
    run.filesystem.makedirs(run.path("manifest"))
    for name, rows in (("b", [3]), ("a", [1, 2])):
        with run.filesystem.open(f"{run.path('manifest')}/{name}.parquet", "wb") as file:
            pq.write_table(pa.table({"n": rows}), file)
    run.write("manifest/notes.txt", "not a table")
    files = run.files("manifest")
    assert [Path(file).name for file in files] == ["a.parquet", "b.parquet"]
    read = pads.dataset(files, filesystem=run.arrow).to_table()
    assert read["n"].to_pylist() == [1, 2, 3]


def test_a_stage_is_complete_when_all_of_it_is_there(run: RunDir):
    with run.stage("manifest", "manifest", "audit.json") as facts:
        assert run.exists("run.json")
        run.write("audit.json", "{}")
        facts["images"] = 7
        assert not run.finished("manifest")
    assert run.finished("manifest")
    record = run.facts()["stages"]["manifest"]
    assert record["images"] == 7
    assert record["seconds"] >= 0
    assert record["begun"].startswith("20")


def test_run_json_says_what_made_the_run(run: RunDir):
    with run.stage("manifest"):
        pass
    facts = run.facts()
    assert facts["config_hash"] == run.config.fingerprint
    assert Config.model_validate(facts["config"]) == run.config
    assert {"sensloc", "torch", "numpy", "ray", "python"} <= facts["versions"].keys()
    assert json.loads(run.read("run.json")) == facts


def test_a_stage_that_fails_is_not_complete(run: RunDir):
    def attempt() -> None:
        with run.stage("fit", "fit.json"):
            run.write("fit.json", "half of it")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        attempt()
    assert not run.finished("fit")
    with run.stage("fit", "fit.json"):
        assert not run.exists("fit.json")
    assert run.finished("fit")
    with pytest.raises(OSError, match="full"):
        attempt()
    assert not run.finished("fit"), "a failed repetition takes the completion back"


def test_a_stage_whose_facts_cannot_be_written_is_not_complete(run: RunDir):
    with pytest.raises(TypeError), run.stage("fit") as facts:
        facts["linear"] = object()
    assert not run.finished("fit")
    assert run.facts()["stages"] == {}


def test_a_stage_begins_without_the_old_outputs_and_leaves_the_others(run: RunDir):
    with run.stage("manifest", "manifest"):
        run.write("manifest/0.parquet", b"old")
        run.write("manifest/1.parquet", b"old")
    with run.stage("fit", "fit.json"):
        run.write("fit.json", "{}")
    with run.stage("manifest", "manifest"):
        assert not run.files("manifest")
        run.write("manifest/0.parquet", b"new")
    assert [run.read("manifest/0.parquet"), len(run.files("manifest"))] == [b"new", 1]
    assert run.finished("manifest")
    assert run.read("fit.json") == b"{}"


def test_stages_are_recorded_side_by_side(run: RunDir):
    for name in ("manifest", "sensitivity", "fit"):
        with run.stage(name) as facts:
            facts["name"] = name
    stages = run.facts()["stages"]
    assert {name: stage["name"] for name, stage in stages.items()} == {
        name: name for name in ("manifest", "sensitivity", "fit")
    }


def test_a_missing_stage_names_the_job_to_run(run: RunDir):
    with run.stage("manifest"):
        pass
    run.require()
    run.require("manifest")
    with pytest.raises(RunError, match=r"sensitivity is not complete: run jobs/sensitivity\.py"):
        run.require("manifest", "sensitivity", "fit")
    jobs = Path(__file__).resolve().parents[1] / "jobs"
    assert (jobs / "sensitivity.py").is_file()


def test_the_same_config_goes_on_and_another_is_refused(run: RunDir, output: str):
    with run.stage("manifest"):
        pass
    faster = config(output, name="b", resources={"actors": 9})
    assert RunDir.open(faster).finished("manifest")
    assert RunDir.open(config(output + "/")).finished("manifest")
    other = config(output, split={"seed": 1})
    with pytest.raises(RunError) as caught:
        RunDir.open(other)
    for part in (run.config.fingerprint, other.fingerprint, output):
        assert part in str(caught.value)
    assert run.finished("manifest"), "and nothing was touched"


def test_a_run_travels_to_workers(run: RunDir):
    run.write("x", b"1")
    sent = pickle.loads(pickle.dumps(run))
    assert sent == run
    assert sent.read("x") == b"1"


def test_urls_and_paths(run: RunDir, output: str):
    assert run.at("fit.json") == f"{output}/fit.json"
    assert run.path("fit.json").endswith("/runs/a/fit.json")
    assert "://" not in run.path("fit.json")
