"""The demo as its users run it: submitted to a cluster that this test starts on this machine."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image

BIN = Path(sys.executable).parent
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
    "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    "RAY_AUTH_MODE": "disabled",  # on loopback; a cluster uses token
    "RAY_USAGE_STATS_ENABLED": "0",
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


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


def submit(head: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line of the README."""
    return subprocess.run(
        [
            BIN / "ray", "job", "submit", f"--address={head}", "--working-dir=.", "--",
            "python", "jobs/localize.py", *arguments,
        ],
        env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


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
