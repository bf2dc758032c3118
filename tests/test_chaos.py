"""The run under fire: its results are the undisturbed run's to the bit, whatever dies when.

400 scenes through one fault of each kind here; ``-m long`` takes the demo itself through 25 seeds.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import chaos
import pytest
from conftest import ROOT, small_config

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def nodes() -> Iterator[chaos.Nodes]:
    with tempfile.TemporaryDirectory(prefix="c", dir="/tmp", ignore_cleanup_errors=True) as short:
        started = chaos.Nodes(Path(short))
        yield started
        started.kill()


@pytest.fixture(scope="module")
def small(nodes: chaos.Nodes, tmp_path_factory: pytest.TempPathFactory) -> chaos.Arena:
    folder = tmp_path_factory.mktemp("chaos")
    small_config(folder, actors=2, cpus_per_task=0.5)
    return chaos.Arena.of(nodes, folder / "small.toml", folder)


@pytest.fixture(scope="module")
def demo(nodes: chaos.Nodes, tmp_path_factory: pytest.TempPathFactory) -> chaos.Arena:
    folder = tmp_path_factory.mktemp("chaos")
    return chaos.Arena.of(nodes, ROOT / "conf/demo.toml", folder)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def aloud(line: str) -> None:
        with capsys.disabled():
            print(f"\n{line}")

    return aloud


def test_a_small_run_survives(small: chaos.Arena, say: Callable[[str], None]) -> None:
    for record in small.survive(38, chaos.KINDS):
        say(str(record))


def test_the_undisturbed_run_is_whole(small: chaos.Arena) -> None:
    ids = chaos.rows(small.job.output)["manifest"]["image_id"].to_pylist()
    assert ids == [f"scene_{i:06d}" for i in range(400)]


@pytest.mark.parametrize("harm", ["lost", "twice", "other", "left"])
def test_harm_is_seen(small: chaos.Arena, tmp_path: Path, harm: str) -> None:
    whole = small.job.output
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
def test_the_demo_survives(demo: chaos.Arena, seed: int, say: Callable[[str], None]) -> None:
    for record in demo.survive(seed):
        say(f"seed {seed}: {record}; undisturbed {demo.seconds:.0f} s")
