"""What a run's status says, and its exit code: of every state that a run can be in."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from test_run import config

from sensloc.report.status import Code, status
from sensloc.store.run import STAGES, RunDir


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """Open a run that a script works on, however the tests were started."""
    monkeypatch.setattr(sys, "argv", ["jobs/run.py", "conf/small.toml"])
    return RunDir.open(config(str(tmp_path / "run with a space")))


def rows(run: RunDir, name: str, n: int) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"n": range(n)}), buffer)
    run.write(name, buffer.getvalue())


def finish(run: RunDir, *stages: str) -> None:
    for name in stages:
        with run.stage(name, name) as facts:
            if name == "manifest":
                rows(run, "manifest/000000.parquet", 256)
                rows(run, "manifest/000001.parquet", 44)
                facts |= {"images": 297, "errors": 3}


def cut_off(run: RunDir, stage: str, file: str) -> None:
    def attempt() -> None:
        with run.stage(stage):
            rows(run, file, 256)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt()


MAIN = [name for name in STAGES if name != "compare"]


def states(run: RunDir) -> dict[str, str]:
    return {name: f"{state} {details}".strip() for name, state, details in status(run).stages}


def test_a_complete_run_is_complete(run: RunDir) -> None:
    finish(run, *MAIN)
    found = status(run)
    assert found.code == Code.COMPLETE
    assert found.command is None
    assert [name for name, *_ in found.stages] == MAIN
    assert states(run)["manifest"] == "done 297 images, 3 errors, 0 s"


def test_a_stage_that_was_cut_off_says_how_far_it_is(run: RunDir) -> None:
    finish(run, "manifest", "classifier")
    cut_off(run, "sensitivity", "sensitivity/000000.parquet")
    Path(run.path("sensitivity/000001.parquet")).write_bytes(b"PAR1 and no end")
    record = run.facts()
    del record["stages"]["sensitivity"]["failed"]  # as SIGKILL leaves it
    run.write("run.json", json.dumps(record))
    found = status(run)
    assert found.code == Code.INCOMPLETE
    assert states(run)["sensitivity"] == "partial 256 of 300 rows, attempt 1"
    assert states(run)["fit"] == "waiting"
    assert found.command is not None
    assert found.command.startswith("python ")


def test_a_failed_stage_says_why(run: RunDir) -> None:
    finish(run, "manifest")

    def attempt() -> None:
        with run.stage("fit"):
            raise OSError("the disk is full\nand more")

    with pytest.raises(OSError, match="full"):
        attempt()
    assert status(run).code == Code.FAILED
    assert states(run)["fit"] == "failed attempt 1, OSError: the disk is full"


def test_inspected_images_are_counted_before_there_is_a_manifest(run: RunDir) -> None:
    cut_off(run, "manifest", "work/inspected/000000.parquet")
    assert states(run)["manifest"].startswith("failed 256 images inspected, attempt 1")


def test_a_job_at_work_is_seen(run: RunDir) -> None:
    with run.alone():
        finish(run, "manifest")
        found = status(run)
        assert found.code == Code.RUNNING
        assert found.job is not None
        assert "job: process" in found.text(run.url)
        assert found.command == f"sensloc status '{run.url}'"
    assert status(run).code == Code.INCOMPLETE


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "jobs/status.py", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_command_line_says_it_with_its_exit_code(run: RunDir) -> None:
    none = command(run.url)
    assert (none.returncode, none.stderr) == (
        1,
        f"error: {run.url}: no run there (no run.json)\n",
    )
    finish(run, "manifest")
    begun = command(run.url)
    assert begun.returncode == Code.INCOMPLETE
    assert begun.stdout.startswith(f"{run.url}: incomplete\nmanifest ")
    assert "\nnext: python " in begun.stdout
    finish(run, *MAIN[1:])
    assert command(run.url).returncode == 0


def test_a_status_needs_no_ray(run: RunDir) -> None:
    code = "import sys, sensloc.cli; sys.exit('ray' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
