"""A run directory: what is recorded as complete is complete, on any file system."""

import io
import json
import logging
import pickle
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
import torch

from sensloc.config import Config
from sensloc.store import provenance
from sensloc.store.run import RunDir, RunError


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
    assert {"sensloc", "torch", "numpy"} <= facts["versions"].keys()
    assert {"ray", "pyarrow"} <= facts["packages"].keys()
    assert {"stages/sensitivity.py", "images/decode.py"} <= facts["code"].keys()
    assert json.loads(run.read("run.json")) == facts


def fail(run: RunDir, name: str = "fit", *outputs: str, **more: object) -> None:
    def attempt() -> None:
        with run.stage(name, *outputs, **more):
            run.write("fit.json", "half of it")
            raise OSError("the disk is full\nand more")

    with pytest.raises(OSError, match="full"):
        attempt()


def test_a_stage_that_was_cut_off_goes_on_with_what_is_there(run: RunDir):
    fail(run, "fit", "fit.json")
    assert not run.finished("fit")
    assert run.stages()["fit"]["failed"] == "OSError: the disk is full"
    with run.stage("fit", "fit.json"):
        assert run.read("fit.json") == b"half of it"
        run.write("fit.json", "all of it")
        assert "failed" not in run.stages()["fit"]
    assert run.finished("fit")
    assert run.stages()["fit"]["attempts"] == 2
    assert "failed" not in run.stages()["fit"]


def test_a_finished_stage_begins_anew_and_a_failed_repetition_takes_the_completion_back(
    run: RunDir,
):
    for _ in range(2):
        with run.stage("fit", "fit.json"):
            assert not run.exists("fit.json")
            run.write("fit.json", "{}")
    assert run.stages()["fit"]["attempts"] == 1
    fail(run, "fit", "fit.json")
    assert not run.finished("fit")


def test_a_stage_forgets_those_after_it_and_they_begin_anew(run: RunDir):
    for name in ("manifest", "sensitivity"):
        with run.stage(name, name):
            run.write(f"{name}/0.parquet", b"old")
    fail(run, "fit", "fit.json")
    with run.stage("manifest", "manifest"):
        assert run.stages().keys() == {"manifest"}
    with run.stage("sensitivity", "sensitivity"):
        assert not run.files("sensitivity"), "rows of another manifest are never kept"
    with run.stage("fit", "fit.json"):
        assert not run.exists("fit.json")


def test_what_rows_are_made_of_must_be_the_same_to_go_on(run: RunDir):
    fail(run, of={"weights": "ab"})
    with (
        pytest.raises(RunError, match="weights: 'ab' there, 'cd' here"),
        run.stage("fit", of={"weights": "cd"}),
    ):
        pytest.fail("must not begin")
    with run.stage("fit", of={"weights": "ab"}):
        pass
    assert run.finished("fit")
    with run.stage("fit", of={"weights": "cd"}):
        pass
    assert run.stages()["fit"]["of"] == {"weights": "cd"}, "a new beginning may differ"


def test_the_first_attempt_settles_for_those_that_go_on(run: RunDir):
    fail(run, rows=256)
    with run.stage("fit", rows=64) as facts:
        assert facts == {"rows": 256}
    with run.stage("fit", rows=64) as facts:
        assert facts == {"rows": 64}


def test_a_stage_whose_facts_cannot_be_written_is_not_complete(run: RunDir):
    with pytest.raises(TypeError), run.stage("fit") as facts:
        facts["linear"] = object()
    assert not run.finished("fit")


def test_what_killed_writers_left_is_gone_when_a_stage_is_complete(run: RunDir):
    with run.stage("fit", "fit"):
        run.write("fit/a.parquet", b"whole")
        run.write("fit/.b.parquet.0123.part", b"half")
    left = [Path(found).name for found in run.filesystem.find(run.path("fit"))]
    assert left == ["a.parquet"]


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
    with pytest.raises(RunError, match=r"sensitivity is not complete: run `sensloc sensitivity`"):
        run.require("manifest", "sensitivity", "fit")
    jobs = Path(__file__).resolve().parents[1] / "jobs"
    assert (jobs / "sensitivity.py").is_file()


def test_the_same_config_goes_on_and_another_is_refused_by_name(run: RunDir, output: str):
    with run.stage("manifest"):
        pass
    faster = config(output, name="b", resources={"actors": 9})
    assert RunDir.open(faster).finished("manifest")
    assert RunDir.open(config(output + "/")).finished("manifest")
    other = config(output, split={"seed": 1}, sensitivity={"grid": 7})
    with pytest.raises(RunError) as caught:
        RunDir.open(other)
    for part in (output, "config.split.seed: 0 there, 1 here", "sensitivity.grid: 14 there, 7"):
        assert part in str(caught.value)
    assert run.finished("manifest"), "and nothing was touched"


@pytest.mark.parametrize(
    ("section", "name"),
    [("code", "images/decode.py"), ("versions", "torch"), ("versions", "sensloc")],
)
def test_other_code_and_other_libraries_are_refused_by_name(run: RunDir, section: str, name: str):
    with run.stage("manifest"):
        pass
    record = run.facts()
    mine, record[section][name] = record[section][name], "other"
    run.write("run.json", json.dumps(record))
    with pytest.raises(RunError) as caught:
        RunDir.open(run.config)
    assert f"{section}.{name}: 'other' there, '{mine}' here" in str(caught.value)


def test_the_folder_decides_which_code_can_change_a_row():
    """All code is a run's, or its comparison's, or shows results: each file is one of these."""
    rows, comparison = provenance.code(), provenance.code(comparison=True)
    assert {name.partition("/")[0] for name in comparison} == {"comparison", "baselines"}
    shown = {
        "arguments.py",
        "command.py",
        "cli.py",
        "__main__.py",
        "report",
        "init",
        "stages/views",
    }
    every = {file.relative_to(provenance.PACKAGE) for file in provenance.PACKAGE.rglob("*.py")}
    rest = every - {Path(name) for name in rows | comparison}
    assert rest == {file for file in every if any(file.is_relative_to(name) for name in shown)}
    assert {"datasets/coco.py", "store/run.py", "stages/fit.py", "config/run.py"} <= rows.keys()


def test_a_network_runs_on_a_machine_of_some_kind():
    device, cpu = provenance.Machine.here(gpus=0)
    assert (device, cpu) == ("cpu", torch.backends.cpu.get_cpu_capability())


def test_another_cpu_is_said_and_recorded_and_goes_on(run: RunDir):
    said, logger = io.StringIO(), logging.getLogger("sensloc.store.run")
    handler = logging.StreamHandler(said)
    handler.setLevel(logging.WARNING)
    logger.addHandler(handler)
    try:
        fail(run, seen={"cpu": "AVX2"})
        fail(run, seen={"cpu": "AVX2"})
        assert said.getvalue() == ""
        fail(run, seen={"cpu": "AVX512"})
        assert re.search("cpu.*AVX512.*AVX2", said.getvalue())
    finally:
        logger.removeHandler(handler)
    with run.stage("fit", seen={"cpu": "AVX2"}):
        assert run.stages()["fit"]["seen"] == {"cpu": ["AVX2", "AVX512"]}
    assert run.stages()["fit"]["seen"] == {"cpu": ["AVX2", "AVX512"]}
    with run.stage("fit", seen={"cpu": "AVX512"}):
        pass
    assert run.stages()["fit"]["seen"] == {"cpu": ["AVX512"]}, "a new beginning"


def test_a_run_travels_to_workers(run: RunDir):
    run.write("x", b"1")
    sent = pickle.loads(pickle.dumps(run))
    assert sent == run
    assert sent.read("x") == b"1"


def test_urls_and_paths(run: RunDir, output: str):
    assert run.at("fit.json") == f"{output}/fit.json"
    assert run.path("fit.json").endswith("/runs/a/fit.json")
    assert "://" not in run.path("fit.json")
