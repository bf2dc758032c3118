"""The command line: a mistake is one message, not a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

JOBS = sorted(file.name for file in (ROOT / "jobs").glob("*.py"))


def job(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", JOBS)
def test_every_job_is_thin_and_explains_itself(name: str) -> None:
    assert len((ROOT / "jobs" / name).read_text().splitlines()) <= 25
    done = job(f"jobs/{name}", "--help")
    assert done.returncode == 0
    for option in {"status.py": [], "predict.py": ["--output"]}.get(name, ["--data", "--output"]):
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
    assert f"\nerror: {tmp_path}/annotations.json: not a JSON file" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "Failed to apply" not in done.stderr
