"""The command line: a mistake is one message, not a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from sensloc.config import load_config
from sensloc.store.run import RunDir

JOBS = sorted(file.name for file in (ROOT / "jobs").glob("*.py"))


def job(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", JOBS)
def test_every_job_is_thin_and_explains_itself(name: str) -> None:
    assert len((ROOT / "jobs" / name).read_text().splitlines()) <= 25
    done = job(f"jobs/{name}", "--help")
    assert done.returncode == 0
    other = {"status.py": [], "report.py": [], "predict.py": ["--output"]}
    for option in other.get(name, ["--data", "--output"]):
        assert option in done.stdout


def test_a_missing_config_is_one_line() -> None:
    done = job("jobs/localize.py", "conf/no_such.toml")
    assert done.returncode == 1
    assert done.stderr == "error: conf/no_such.toml: no such config file\n"


BROKEN = """
name = "broken"
output = "{folder}/run"
[dataset]
layout = "coco"
root = "{folder}"
[classifier]
source = "torchvision"
name = "resnet18"
"""


def test_an_error_in_a_worker_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations.json").write_text("no JSON")
    config = tmp_path / "broken.toml"
    config.write_text(BROKEN.format(folder=tmp_path))
    done = job("jobs/manifest.py", str(config))
    assert done.returncode == 1
    assert f"\nerror: {tmp_path}/annotations.json: not a JSON file" in f"\n{done.stderr}"
    assert "Traceback" not in done.stdout + done.stderr
    assert "Failed to apply" not in done.stderr


# --------------------------------------------------------------------------- sensloc

COMMANDS = ("run", "predict", "report", "status", "coco", "pack", "bench")


def sensloc(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sensloc", *arguments],
        cwd=ROOT, env=os.environ | {"COLUMNS": "200"} | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_help_names_every_command_and_where_to_begin() -> None:
    done = sensloc("--help")
    assert done.returncode == 0
    assert all(f" {name} " in done.stdout for name in COMMANDS)
    assert "sensloc run conf/demo.toml" in done.stdout
    assert sensloc().returncode == 2, "nothing to do is no success"


@pytest.mark.parametrize("command", [*COMMANDS, "bench latency", "bench storage", "bench scale"])
def test_every_command_explains_itself(command: str) -> None:
    done = sensloc(*command.split(), "--help")
    assert done.returncode == 0
    assert f"Usage: sensloc {command}" in done.stdout


def test_it_is_installed_by_its_name() -> None:
    script = Path(sys.executable).with_name("sensloc")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=False)
    assert "Usage: sensloc" in done.stdout


def test_the_shell_completes_commands() -> None:
    asked = {"_SENSLOC_COMPLETE": "complete_bash", "COMP_WORDS": "sensloc st", "COMP_CWORD": "1"}
    assert sensloc(**asked).stdout.split() == ["status"]


def test_a_command_that_is_none_is_a_mistake_of_the_command_line() -> None:
    done = sensloc("localise")
    assert done.returncode == 2
    assert "localise" in done.stderr


def test_a_changed_value_is_the_runs(tmp_path: Path) -> None:
    """Refused where the key is none; recorded where the run begins."""
    config = tmp_path / "broken.toml"
    config.write_text(BROKEN.format(folder=tmp_path))
    done = sensloc("run", str(config), "--set", "resources.actor=2")
    assert done.returncode == 1
    assert "resources.actor: Extra inputs are not permitted" in done.stderr
    run = RunDir.open(load_config(str(config), changes=["evaluate.iou=0.7"]))
    with run.stage("manifest"):
        assert run.facts()["config"]["evaluate"]["iou"] == 0.7


def test_a_report_or_coco_of_nothing_is_one_line(tmp_path: Path) -> None:
    for command in ("report", "coco"):
        done = sensloc(command, str(tmp_path))
        assert done.returncode == 1
        assert done.stderr == f"error: {tmp_path}: no run there (no run.json)\n"
