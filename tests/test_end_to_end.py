"""The demo as its users run it: submitted to a cluster that this test starts on this machine."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from chaos import free_port
from conftest import ROOT
from PIL import Image
from ray.job_submission import JobSubmissionClient

BIN = Path(sys.executable).parent
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
    "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    "RAY_AUTH_MODE": "disabled",  # on loopback; a cluster uses token
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_idle_worker_killing_time_threshold_ms": "60000",  # as in cluster/Dockerfile
}


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """The address of the dashboard of a cluster with one node of two CPUs."""
    dashboard = free_port()
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as short:
        log = Path(short, "head.log")
        with log.open("w") as out:
            process = subprocess.Popen(
                [
                    BIN / "ray", "start", "--head", "--block", f"--port={free_port()}",
                    "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1",
                    f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={free_port()}",
                    "--num-cpus=2", f"--temp-dir={short}/ray",
                ],
                env=ENVIRONMENT, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        address = f"http://127.0.0.1:{dashboard}"
        try:
            wait_for(address, process, log)
            yield address
        finally:
            process.terminate()
            process.wait(60)


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the cluster takes a job: its dashboard answers before its agent does."""
    for _ in range(60):
        assert process.poll() is None, log.read_text()
        command = [BIN / "ray", "job", "submit", f"--address={address}", "--", "true"]
        if (
            subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=False).returncode
            == 0
        ):
            return
        time.sleep(1)
    pytest.fail(f"no cluster at {address}: {log.read_text()}")


def ray_job(head: str, action: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``ray job ACTION``."""
    return subprocess.run(
        [BIN / "ray", "job", action, f"--address={head}", *arguments],
        env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def submit(
    head: str, *arguments: str | Path, options: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """The command line of the README."""
    job = ("--", "python", "jobs/run.py", *map(str, arguments))
    return ray_job(head, "submit", "--working-dir=.", *options, *job)


def test_the_submitted_demo_succeeds(head: str, tmp_path: Path) -> None:
    done = submit(head, "conf/demo.toml", f"--data={tmp_path}/scenes", f"--output={tmp_path}/demo")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for said in ("sensitivity_calibrated", "images/s", "top-1", f"{tmp_path}/demo/examples.png"):
        assert said in done.stdout

    facts = json.loads((tmp_path / "demo/run.json").read_text())
    assert facts["stages"]["sensitivity"]["rows"] == 8000
    assert facts["stages"]["sensitivity"]["errors"] == 0
    assert facts["stages"]["sensitivity"]["top1"]["test"] > 90

    corloc = pd.read_parquet(tmp_path / "demo/corloc").query("scope == 'overall'")
    by_method = corloc.set_index("method").corloc
    assert by_method["sensitivity_calibrated"] >= by_method["constant_tuned"] + 20
    assert by_method["constant_tuned"] >= by_method["constant_mean"] - 5

    with Image.open(tmp_path / "demo/examples.png") as sheet:
        assert min(sheet.size) > 800
    rows = (tmp_path / "demo/table.md").read_text().count("\n| ")
    assert rows == 6


def test_a_failing_job_fails_and_an_output_that_would_be_lost_is_said(head: str) -> None:
    done = submit(head, "conf/imagenet_mini.toml", "--data=/no/such/folder")
    assert done.returncode != 0
    assert "error: /no/such/folder" in done.stdout + done.stderr
    assert "runs/imagenet_mini goes with the submitted job's copy" in done.stdout + done.stderr


SLOW = """
name = "slow"
output = "no/such/folder"

[dataset]
layout = "scenes"
root = "no/such/folder"
count = 640

[classifier]
source = "scenes"
epochs = 1

[sensitivity]
grid = 8
batch_size = 1

[resources]
actors = 1
cpus_per_task = 1
rows_per_block = 16
"""
"""Images one by one, 16 to a unit: 40 units in a stage of many seconds."""


def units(run: Path) -> dict[Path, tuple[int, int]]:
    """The unit files of a run: inode, and time of the last change in nanoseconds."""
    found = [
        file for stage in ("manifest", "sensitivity") for file in (run / stage).glob("*.parquet")
    ]
    return {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in found}


def test_a_stopped_job_goes_on_where_it_was(head: str, tmp_path: Path) -> None:
    config, run = tmp_path / "slow.toml", tmp_path / "stopped"
    config.write_text(SLOW)
    data = f"--data={tmp_path}/scenes"

    first = ["--no-wait", "--submission-id=first"]
    assert submit(head, config, data, f"--output={run}", options=first).returncode == 0
    client = JobSubmissionClient(head)
    while not any((run / "sensitivity").glob("*.parquet")):
        assert not client.get_job_status("first").is_terminal(), client.get_job_logs("first")
        time.sleep(0.2)
    ray_job(head, "stop", "first")
    assert client.get_job_status("first") == "STOPPED"
    before = units(run)
    assert 40 < len(before) < 80
    assert "finished" not in json.loads((run / "run.json").read_text())["stages"]["sensitivity"]

    done = submit(head, config, data, f"--output={run}", options=["--submission-id=second"])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    after = units(run)
    assert len(after) == 80
    assert before.items() <= after.items()
    rows = pq.read_table(run / "sensitivity", columns=["image_id"])["image_id"].to_pylist()
    assert sorted(rows) == [f"scene_{number:06d}" for number in range(640)]
