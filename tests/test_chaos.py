"""The run under fire: its results are the undisturbed run's to the bit, whatever dies when.

A small run through one fault of each kind but the power cut; ``-m long`` takes the demo itself
through 25 seeds of all kinds.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import chaos
import pytest

pytestmark = pytest.mark.chaos


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def aloud(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}")

    return aloud


def test_a_small_run_survives(submitted: chaos.Arena, say: Callable[[str], None]) -> None:
    for record in submitted.survive(38, [kind for kind in chaos.KINDS if kind != "all"]):
        say(str(record))


@pytest.mark.parametrize("harm", ["lost", "twice", "other", "left"])
def test_harm_is_seen(submitted: chaos.Arena, tmp_path: Path, harm: str) -> None:
    whole = submitted.job.output
    harmed = shutil.copytree(whole, tmp_path / "run")
    first, second, *_ = sorted((harmed / "sensitivity").glob("*.parquet"))
    chaos.assert_same(harmed, whole)
    if harm == "lost":
        first.unlink()
    elif harm == "twice":
        shutil.copy(first, first.with_name("again.parquet"))
    elif harm == "other":
        shutil.copy(first, second)
    else:
        first.with_name(f".{first.name}.part").touch()
    with pytest.raises(AssertionError, match="sensitivity"):
        chaos.assert_same(harmed, whole)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(25))
def test_the_demo_survives(
    submitted_demo: chaos.Arena, seed: int, say: Callable[[str], None]
) -> None:
    for record in submitted_demo.survive(seed):
        say(f"seed {seed}: {record}; undisturbed {submitted_demo.seconds:.0f} s")
