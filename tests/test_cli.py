"""The command line: a mistake is one message, not a traceback."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from typer.main import get_group
from typer.testing import CliRunner, Result

from sensloc import __version__
from sensloc.cli import app, script
from sensloc.config import load_config
from sensloc.engine.cluster import connected
from sensloc.report.messages import errors_as_messages
from sensloc.stages.whole_run import STAGES
from sensloc.store.run import RunDir

FIRST_PROCESS = (
    "manifest", "classifier", "foreground", "sensitivity", "fit", "evaluate", "localizer",
    "other_data", "predict",
)  # fmt: skip
"""The modules of stages, which ask for a network and have none: a job's first process is small."""

COMMANDS = sorted(get_group(app).commands)

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


def sensloc(*arguments: str) -> Result:
    """``sensloc``, in this process."""
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments, prog_name="sensloc")


def job(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``python jobs/NAME.py ...``, in a process."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_help_names_every_command_and_where_to_begin() -> None:
    done = sensloc("--help")
    assert done.exit_code == 0
    assert all(f" {name} " in done.output for name in COMMANDS)
    assert "sensloc run demo" in done.output
    assert sensloc().exit_code == 2, "nothing to do is no success"


def test_every_stage_is_a_command_and_every_command_a_script() -> None:
    assert STAGES.keys() <= set(COMMANDS)
    assert sorted(file.stem for file in (ROOT / "jobs").glob("*.py")) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_and_its_script_explain_themselves(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = sensloc(name, "--help")
    assert done.exit_code == 0
    assert f"Usage: sensloc {name}" in done.output
    monkeypatch.setattr(sys, "argv", [f"jobs/{name}.py", "--help"])
    with pytest.raises(SystemExit) as left:
        script(str(ROOT / "jobs" / f"{name}.py"))
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert f"Usage: python jobs/{name}.py" in text
    assert set(re.findall(r"--\w+", text)) == set(re.findall(r"--\w+", done.output))


def test_a_script_takes_its_arguments_from_the_command_line() -> None:
    done = job("jobs/run.py", "conf/no_such.toml")
    assert done.returncode == 1
    assert re.fullmatch(r"error: conf/no_such.toml: no such config file; .*\n", done.stderr)


def test_a_command_waits_for_no_import_that_it_does_not_need() -> None:
    """A task imports what holds its function: a manifest's has no torch, which takes 2 s, and 0.3
    GB of each process."""
    slow = ["torch", "sklearn", "scipy.stats", "matplotlib", "altair"]
    imports = "import sys, sensloc.cli, sensloc.stages.whole_run; assert 'ray' not in sys.modules"
    stages = ", ".join(f"sensloc.stages.{name}" for name in FIRST_PROCESS)
    done = job("-c", f"{imports}; import {stages}; print([m for m in {slow} if m in sys.modules])")
    assert done.stdout == "[]\n", done.stderr


def test_it_is_installed_by_its_name_and_the_shell_completes_commands() -> None:
    asked = {"_SENSLOC_COMPLETE": "complete_bash", "COMP_WORDS": "sensloc st", "COMP_CWORD": "1"}
    installed = Path(sys.executable).with_name("sensloc")
    done = subprocess.run(
        [installed], env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["status"]


def test_a_command_that_is_none_is_a_mistake_of_the_command_line() -> None:
    done = sensloc("localise")
    assert done.exit_code == 2
    assert "localise" in done.output


@pytest.mark.usefixtures("cluster")
def test_an_error_in_a_worker_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations.json").write_text("no JSON")
    config = tmp_path / "broken.toml"
    config.write_text(BROKEN.format(folder=tmp_path))
    done = sensloc("manifest", str(config))
    assert done.exit_code == 1
    assert f"\nerror: {tmp_path}/annotations.json: not a JSON file" in f"\n{done.output}"
    assert "Traceback" not in done.output
    assert "Failed to apply" not in done.output


def test_a_command_says_what_it_does_and_of_other_libraries_only_warnings() -> None:
    says = """
import logging
from sensloc.report.messages import errors_as_messages
with errors_as_messages():
    for name in ("sensloc.stages", "botocore"):
        logging.getLogger(name).info("news")
        logging.getLogger(name).warning("a warning")
"""
    lines = [line.split(" ", 2)[2] for line in job("-c", says).stderr.splitlines()]
    assert lines == ["sensloc.stages: news", "sensloc.stages: a warning", "botocore: a warning"]


@pytest.mark.usefixtures("cluster")
def test_a_job_that_is_terminated_ends_as_by_ctrl_c() -> None:
    stopped = pytest.raises(SystemExit, match="stopped: the same command goes on from here")
    with stopped, errors_as_messages(), connected():
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.usefixtures("cluster")
def test_scenes_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    places = ("--data", "/sys/scenes", "--output", str(tmp_path / "run"))
    done = sensloc("manifest", "demo", *places, "--set", "dataset.count=10")
    assert done.exit_code == 1
    assert re.search(r"^error: .*/sys/scenes.*: choose a folder .*--data", done.output, re.M)
    assert "Traceback" not in done.output


def test_a_changed_value_is_the_runs(tmp_path: Path) -> None:
    """Refused where the key is none; recorded where the run begins."""
    config = tmp_path / "broken.toml"
    config.write_text(BROKEN.format(folder=tmp_path))
    done = sensloc("run", str(config), "--set", "resources.actor=2")
    assert done.exit_code == 1
    assert "resources.actor: Extra inputs are not permitted" in done.output
    run = RunDir.open(load_config(str(config), changes=["evaluate.iou=0.7"]))
    with run.stage("manifest"):
        assert run.facts()["config"]["evaluate"]["iou"] == 0.7


def test_it_says_its_version() -> None:
    assert sensloc("--version").output == f"{__version__}\n"


def test_a_named_config_is_listed_and_printed() -> None:
    listed = dict(line.split(maxsplit=1) for line in sensloc("configs").output.splitlines())
    assert listed.keys() == {file.stem for file in (ROOT / "conf").glob("*.toml")}
    assert all(line.endswith(".") for line in listed.values()), "a sentence, not cut off"
    assert sensloc("configs", "demo").output == (ROOT / "conf/demo.toml").read_text()
    refused = sensloc("configs", "no_such")
    assert refused.exit_code == 1
    assert all(name in refused.output for name in listed)


def test_a_run_that_is_complete_is_answered_without_ray(small_run: RunDir) -> None:
    config = str(Path(small_run.url).with_name("small.toml"))
    run = f"import sys, sensloc.cli; sensloc.cli.app(['run', {config!r}], standalone_mode=False)"
    done = job("-c", f"{run}; print('ray' in sys.modules)")
    assert done.stdout.endswith("\nFalse\n"), done.stderr
    assert f"open {small_run.at('report.html')}" in done.stdout


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """Below a file, and where the kernel makes no folder, whoever asks."""
    (tmp_path / "file").write_text("")
    for folder in (f"{tmp_path}/file/run", "/sys/sensloc"):
        done = sensloc("run", "demo", "--output", folder)
        assert done.exit_code == 1
        assert re.fullmatch(
            rf"error: .*{folder}.*: choose a folder that .*--output.*\n", done.output
        )


@pytest.mark.parametrize("command", ["report", "coco", "status"])
def test_a_folder_without_a_run_is_one_line(tmp_path: Path, command: str) -> None:
    done = sensloc(command, str(tmp_path))
    assert done.exit_code == 1
    assert done.output == f"error: {tmp_path}: no run there (no run.json)\n"
