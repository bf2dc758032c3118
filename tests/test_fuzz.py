"""The entrance under fire: a damaged file is a result or its documented error, nothing else.

A child process reads damaged files for SENSLOC_FUZZ_SECONDS (5). A decoder may crash, hang or
eat the memory: whatever ends the child is a failure that names its input by seed and number, and
keeps the file. The seed is drawn from the clock, so that every run looks elsewhere, and printed;
SENSLOC_FUZZ_SEED takes it again, and with it the same inputs.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import fuzz
import pytest

SECONDS = float(os.environ.get("SENSLOC_FUZZ_SECONDS", "5"))
SEED = int(os.environ.get("SENSLOC_FUZZ_SEED") or time.time_ns() % 2**32)


def problem(log: Path, *command: object) -> str | None:
    """Return how a Python child that reads inputs of ``SEED`` ended, and at which; None: well."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS + 500,
    )
    if done.returncode == 0:
        return None
    number = log.read_text()
    name, data = fuzz.draw(SEED, int(number))
    log.with_name("input").write_bytes(data)
    where = f"{name}: seed {SEED}, input {number}, kept as {log.with_name('input')}"
    return f"{where}\nexit status {done.returncode}\n{done.stderr[-4000:]}\n{data[:1000]!r}"


@pytest.mark.timeout(SECONDS + 600)
def test_no_damage_is_more_than_an_error(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    log = tmp_path / "log"
    with capsys.disabled():
        print(f"\nSENSLOC_FUZZ_SEED={SEED}")
    if defect := problem(log, fuzz.__file__, SEED, SECONDS, log):
        pytest.fail(defect)
    counts = json.loads(log.read_text())
    print(counts)
    assert counts.keys() == fuzz.ENTRANCES.keys()
    for answers in counts.values():
        assert sum(answers.values()) >= fuzz.LEAST
        assert min(answers.values()) > 0


DEFECTS = {
    "1 / 0": "ZeroDivisionError",
    "os.abort()": "exit status -6\nFatal Python error: Aborted",
    "all(iter(int, 1)) or any(iter(int, 1))": "exit status -27\n",
    "b'x' * 2**30": "one input took too much memory",
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_every_kind_of_defect_is_found(defect: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = (
        "import fuzz, os, pathlib; fuzz.CPU_S = 3; "
        f"fuzz.ENTRANCES['JPEG'] = fuzz.Entrance([b'x'], lambda data, folder: {defect}); "
        f"fuzz.main({SEED}, 0, pathlib.Path({str(log)!r}))"
    )
    report = problem(log, "-c", code)
    assert report is not None
    assert f"JPEG: seed {SEED}, input 2, kept" in report
    assert DEFECTS[defect] in report
    assert (tmp_path / "input").read_bytes() == fuzz.draw(SEED, 2)[1]
