"""The job as its users run it on a cluster: submitted, failing, stopped and submitted again.

On the cluster of three nodes that the faults strike too.
"""

import json
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import chaos
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image


def ray_job(nodes: chaos.Nodes, action: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call ``ray job ACTION``."""
    with nodes.environment():
        return subprocess.run(
            [f"{chaos.BIN}/ray", "job", action, f"--address={nodes.dashboard}", *arguments],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip


def test_a_submitted_job_succeeds(submitted: chaos.Arena) -> None:
    output = submitted.job.output
    log = submitted.job.log.read_text()
    for words in ("sensitivity_calibrated", "images/s", "top-1", f"{output}/examples.png"):
        assert words in log
    ids = chaos.rows(output)["manifest"]["image_id"].to_pylist()
    assert ids == [f"scene_{i:06d}" for i in range(len(ids))]
    stages = json.loads((output / "run.json").read_text())["stages"]
    assert stages["sensitivity"]["rows"] == len(ids)
    assert stages["sensitivity"]["errors"] == 0
    with Image.open(output / "examples.png") as sheet:
        assert min(sheet.size) > 800
    assert (output / "table.md").read_text().count("\n| ") == 7


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_submitted_demo_succeeds(submitted_demo: chaos.Arena) -> None:
    output = submitted_demo.job.output
    facts = json.loads((output / "run.json").read_text())
    assert facts["stages"]["sensitivity"]["rows"] == 6000
    assert facts["stages"]["sensitivity"]["errors"] == 0
    assert facts["stages"]["sensitivity"]["top1"]["test"] > 90

    corloc = pd.read_parquet(output / "corloc").query("scope == 'overall'")
    by_method = corloc.set_index("method").corloc
    assert by_method["sensitivity_calibrated"] >= by_method["constant_tuned"] + 20
    assert by_method["constant_tuned"] >= by_method["constant_mean"] - 5


def test_a_failing_job_fails_and_an_output_that_would_be_lost_is_said(nodes: chaos.Nodes) -> None:
    assert nodes.client
    run = ("python", "-m", "sensloc", "run", "conf/imagenet_mini.toml", "--data=/no/such/folder")
    done = ray_job(nodes, "submit", "--working-dir=.", "--", *run)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "error: /no/such/folder" in said
    assert "runs/imagenet_mini goes with the submitted job's copy" in said


def units(run: Path) -> dict[Path, tuple[int, int]]:
    """Return the unit files of a run: inode, and time of the last change in nanoseconds."""
    stages = ("manifest", "sensitivity")
    files = [file for stage in stages for file in (run / stage).glob("*.parquet")]
    return {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_stopped_job_goes_on_where_it_was(submitted: chaos.Arena, tmp_path: Path) -> None:
    nodes, job = submitted.nodes, replace(submitted.job, output=tmp_path / "stopped")
    assert job.submit(nodes, "--no-wait", "--submission-id=first").wait() == 0
    while not any((job.output / "sensitivity").glob("*.parquet")):
        assert not nodes.client.get_job_status("first").is_terminal(), job.tail()
        time.sleep(0.1)
    ray_job(nodes, "stop", "first")
    assert nodes.client.get_job_status("first") == "STOPPED"
    before = units(job.output)
    assert not (job.output / "report.html").exists()

    assert job.submit(nodes).wait() == 0, job.tail()
    assert before.items() <= units(job.output).items()
    chaos.assert_same(job.output, submitted.job.output)
