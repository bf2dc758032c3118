"""The chain from a unit to its file: what is decoded, how it is cut, who works on it."""

import os
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from conftest import small_config
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from ray._private.worker import get_dashboard_url
from threadpoolctl import threadpool_info
from workers import Begun, Fragile, OnFull, OnSlow, Sums, broken, sums

from sensloc.comparison import maps, proposals
from sensloc.comparison.draw import Draw
from sensloc.comparison.partners import partners_of
from sensloc.config import Config
from sensloc.engine import cluster, idle, units
from sensloc.engine.batches import Images, Worker
from sensloc.engine.chain import DECODE, Chain, write_units
from sensloc.engine.pool import Pool, actor_of, called
from sensloc.errors import ClassifierError
from sensloc.heatmaps.controls import partners
from sensloc.images.inspection import content_hash
from sensloc.stages import sensitivity
from sensloc.store import tables
from sensloc.store.files import load_unit
from sensloc.store.run import RunDir

SIZE = 8


# --------------------------------------------------------------------------- batches


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 7))
def test_each_row_meets_its_own_image_once_in_its_own_place(
    decoded: list[bool], batch_size: int
) -> None:
    rows = pa.table({"image_id": pa.array([str(i) for i in range(len(decoded))], pa.string())})
    at = np.flatnonzero(decoded)
    pixels = np.zeros((len(at), 2, 2, 3), np.uint8)
    pixels[:] = at[:, None, None, None]
    made = Images(rows, at, pixels).through(Sums(), batch_size)
    assert made["image_id"].to_pylist() == rows["image_id"].to_pylist()
    assert made["sum"].to_pylist() == [12 * i if there else 0 for i, there in enumerate(decoded)]
    assert max(made["batch"].to_pylist(), default=0) <= batch_size
    if all(decoded):
        assert sum(made["mixed"].to_pylist()) <= 2 * batch_size, "a change of kind is in one batch"
    assert set(made["n"].to_pylist()) <= {len(rows)}


def test_two_batches_are_begun_at_a_time_and_end_in_their_order() -> None:
    said: list[str] = []

    class Said(Sums):
        def begin(self, rows: pa.Table, pixels: np.ndarray) -> Callable[[], pa.Table]:
            first = rows["image_id"][0].as_py()
            said.append(f"begin {first}")
            return lambda: said.append(f"end {first}") or self(rows, pixels)

        def kinds(self, rows: pa.Table) -> np.ndarray:
            return np.zeros(len(rows), np.int64)

    rows = pa.table({"image_id": [str(i) for i in range(5)]})
    made = Images(rows, np.arange(5), np.ones((5, 1, 1, 3), np.uint8)).through(Said(), 2)
    assert made["image_id"].to_pylist() == rows["image_id"].to_pylist()
    assert said == ["begin 0", "begin 2", "end 0", "begin 4", "end 2", "end 4"]


# --------------------------------------------------------------------------- images


def photograph(file: Path, width: int, height: int) -> dict[str, Any]:
    """A row of the manifest, and its image."""
    rng = np.random.default_rng(width * height)
    Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(file)
    return {
        "image_id": file.name,
        "uri": str(file),
        "wnid": "red square",
        "class_index": 0,
        "split": "test",
        "boxes": [[0.0, 0.0, 1.0, 1.0]],
        "content": content_hash(file.read_bytes()),
        "map": [0.0] * 64,
    }


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return small_config(tmp_path)


@pytest.fixture
def stored(config: Config, tmp_path: Path) -> RunDir:
    """Three photographs, of which one has changed since, and one is larger than is allowed now."""
    limited = config.dataset.model_copy(update={"max_pixels": 400})
    run = RunDir(config.output, config.model_copy(update={"dataset": limited}))
    rows = [
        photograph(tmp_path / "good.png", 20, 20),
        photograph(tmp_path / "changed.png", 10, 10),
        photograph(tmp_path / "large.png", 21, 20),
    ]
    photograph(tmp_path / "changed.png", 11, 11)
    for stage, schema in (
        ("manifest", tables.MANIFEST),
        ("sensitivity", tables.sensitivity({"map": 64, "map_foreground": 64})),
    ):
        units.write(run, stage, "000000", pa.Table.from_pylist(rows, schema))
    return run


def test_the_comparison_reads_images_under_the_protection_of_the_main_run(stored: RunDir) -> None:
    taken = Draw(0, {})
    main = sensitivity.chain(stored).images("000000", isolated=False)
    expected = main.rows["error"].to_pylist()
    assert expected[0] is None
    assert str(expected[1]).endswith("changed.png: has changed since the manifest was made")
    assert str(expected[2]).endswith("large.png: 21 x 20 is over 400 pixels")
    assert main.at.tolist() == [0]

    proposed = proposals.chain(stored, taken).images("000000", isolated=False)
    assert proposed.rows["error"].to_pylist() == expected
    # the images were as they should be when the proposals were made, and are not any more
    before = load_unit(stored, "sensitivity", "000000", proposals.carried(stored))
    failures = pa.array([[]] * len(before), proposals.FAILURES)
    units.write(stored, proposals.PROPOSALS, "000000", before.append_column("failures", failures))
    mapped = maps.chain(stored).images(("000000", None), isolated=False)
    assert mapped.rows["error"].to_pylist() == expected


def rows_of(run: RunDir, what: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(
        what,
        pa.schema(
            [
                ("image_id", pa.string()),
                ("uri", pa.string()),
                ("width", pa.int32()),
                ("height", pa.int32()),
                (DECODE, pa.bool_()),
                ("error", pa.string()),
            ]
        ),
    )


def chain_of(run: RunDir, worker: Callable[[str], Worker] = sums) -> Chain:
    small = run.config.sensitivity.model_copy(update={"batch_size": 2})
    run = RunDir(run.url, run.config.model_copy(update={"sensitivity": small}))
    return Chain(run, "sums", rows=rows_of, size=SIZE, worker=worker)


def four(folder: Path) -> list[dict[str, Any]]:
    """A fine row, a row that needs no image, a row with an error, and one without its file."""
    photograph(folder / "a.png", 30, 20)
    uris = [str(folder / name) for name in ("a.png", "a.png", "a.png", "none.png")]
    rows = [{"image_id": str(i), "uri": uri, DECODE: True} for i, uri in enumerate(uris)]
    rows[1][DECODE] = False
    rows[2]["error"] = "broken before"
    return rows


@pytest.mark.parametrize("isolated", [False, True])
def test_only_what_is_needed_is_decoded_and_measured(
    config: Config, tmp_path: Path, isolated: bool
) -> None:
    images = chain_of(RunDir(config.output, config)).images(four(tmp_path), isolated)
    assert images.at.tolist() == [0]
    assert images.rows["width"].to_pylist() == [30, None, None, None]
    assert images.rows["height"].to_pylist() == [20, None, None, None]
    first, second, third, last = images.rows["error"].to_pylist()
    assert (first, second, third) == (None, None, "broken before")
    assert last.startswith(f"{tmp_path}/none.png: ")


# --------------------------------------------------------------------------- units


class Counted(list[str]):
    """A list that knows how often it was gone through."""

    times = 0

    def __iter__(self) -> Any:
        self.times += 1
        return super().__iter__()


def test_the_list_of_units_is_gone_through_once_however_many_are_there(config: Config) -> None:
    run = RunDir(config.output, config)
    wanted = Counted(f"{i:03d}" for i in range(40))
    for unit in [*wanted[:20], "stray"]:
        units.write(run, "sums", unit, pa.table({"a": [1]}))
    run.write("sums/005.parquet", b"PAR1 and no end")
    wanted.times = 0
    assert units.missing(run, "sums", wanted) == ["005", *wanted[20:]]
    assert wanted.times == 1
    assert "stray" not in units.names(run, "sums")


# --------------------------------------------------------------------------- on the cluster


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("held", [False, True])
def test_a_unit_becomes_its_file_and_a_file_that_is_there_stays(
    config: Config, tmp_path: Path, held: bool
) -> None:
    run, rows = RunDir(config.output, config), four(tmp_path)
    what = {"a": rows, "b": rows[:1], "c": rows[1:]}
    assert write_units(chain_of(run), what, held) == ["a", "b", "c"]
    made = pq.read_table(run.file("sums", "a"))
    assert made["image_id"].to_pylist() == ["0", "1", "2", "3"]
    assert [value > 0 for value in made["sum"].to_pylist()] == [True, False, False, False]
    Path(run.file("sums", "b")).unlink()
    assert write_units(chain_of(run), what, held) == ["b"]


@pytest.mark.usefixtures("cluster")
def test_the_next_units_work_begins_while_a_file_is_written(config: Config, tmp_path: Path) -> None:
    (tmp_path / "begun").mkdir()
    plain = chain_of(RunDir(config.output, config), partial(Begun, folder=tmp_path / "begun"))
    row = four(tmp_path)[0]
    what = {unit: [row | {"image_id": f"{i}"}] for i, unit in enumerate("abc")}
    one_actor = config.resources.model_copy(update={"actors": 1})
    run = OnSlow(plain.run.url, plain.run.config.model_copy(update={"resources": one_actor}))
    assert write_units(replace(plain, run=run), what) == ["a", "b", "c"]
    assert units.missing(plain.run, "sums", what) == []


@pytest.mark.usefixtures("cluster")
def test_a_write_that_fails_says_why(config: Config, tmp_path: Path) -> None:
    plain = chain_of(RunDir(config.output, config))
    chain = replace(plain, run=OnFull(plain.run.url, plain.run.config))
    with pytest.raises(OSError, match="No space left on device"):
        write_units(chain, {"a": four(tmp_path), "b": four(tmp_path)})
    assert units.missing(plain.run, "sums", "ab") == ["a", "b"]


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("held", [False, True])
def test_a_worker_that_cannot_be_made_says_why(config: Config, tmp_path: Path, held: bool) -> None:
    chain = chain_of(RunDir(config.output, config), broken)
    with pytest.raises(ClassifierError, match=r"classifier\.source: no such network"):
        write_units(chain, {"a": four(tmp_path)}, held)


@pytest.mark.usefixtures("cluster")
def test_a_unit_whose_decoding_kills_its_process_is_decoded_in_children(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "RETRIES", 0)
    plain = chain_of(RunDir(config.output, config))
    fragile = Fragile(plain.run, "sums", plain.rows, plain.worker, plain.size)
    assert write_units(fragile, {"a": four(tmp_path)}, held=False) == ["a"]
    made = pq.read_table(plain.run.file("sums", "a"))
    assert [value > 0 for value in made["sum"].to_pylist()] == [True, False, False, False]


@pytest.mark.usefixtures("cluster")
def test_actors_that_die_are_started_again_and_ray_has_nothing_to_say(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def dies_once() -> Callable[[int], int]:
        def work(n: int) -> int:
            marker = tmp_path / str(n)
            if n % 3 == 0 and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return n * n

        return work

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pool = Pool(dies_once, most=2, cpus=0.5, calls=2)
        pool.resize(waiting=4)
        for n in range(4):
            pool.submit(n)
        assert sorted(pool.take(call) for call in list(pool.pending)) == [0, 1, 4, 9]
        pool.close()
    assert "constructor arguments" not in capfd.readouterr().err


@pytest.mark.usefixtures("cluster")
def test_linear_algebra_has_one_thread_here_and_in_a_task_of_many_cpus() -> None:
    """With more it sums in another order: equal sums would give other bits on more cores."""

    def threads() -> set[int]:
        libraries = threadpool_info()
        return {library["num_threads"] for library in libraries if library["user_api"] == "blas"}

    def of_torch() -> int:
        import torch

        return torch.get_num_threads()

    assert threads() == {1}
    assert cluster.in_task(threads, cpus=2.0) == {1}
    assert cluster.in_task(of_torch, cpus=2.0) == 1
    assert called(of_torch, cpus=2.0, gpus=0, beside=0.0) == 1


@pytest.mark.usefixtures("cluster")
def test_workers_inherit_their_settings_and_there_is_no_dashboard() -> None:
    settings = cluster.KEEP_FREED_MEMORY | cluster.ONE_THREAD
    assert cluster.in_task(lambda: dict(os.environ), cpus=0.5).items() >= settings.items()
    assert ray.get_runtime_context().runtime_env.env_vars() == {}, "no worker is started anew"
    assert not get_dashboard_url(), "it takes as many processes again"


def test_what_is_inherited_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENSLOC_OLD", "before")
    with cluster._in_environment({"SENSLOC_OLD": "after", "SENSLOC_NEW": "after"}):
        assert os.environ["SENSLOC_OLD"] == os.environ["SENSLOC_NEW"] == "after"
    assert os.environ["SENSLOC_OLD"] == "before"
    assert "SENSLOC_NEW" not in os.environ


@pytest.mark.usefixtures("cluster")
def test_a_pools_worker_is_made_before_its_first_input_comes(tmp_path: Path) -> None:
    made = tmp_path / "made"

    def make() -> Callable[..., int]:
        made.touch()
        return lambda: 7

    pool = Pool(make, most=1, cpus=0.5, spare=1.0)
    pool.resize(waiting=1)
    until = time.monotonic() + 60
    while not made.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert made.exists()
    pool.submit()
    assert [pool.take(call) for call in list(pool.pending)] == [7]
    pool.close()


@pytest.mark.usefixtures("cluster")
def test_an_actor_makes_no_worker_before_what_it_rehearses_has_ended(tmp_path: Path) -> None:
    said = tmp_path / "said"

    def slow() -> None:
        said.write_text("begun")
        time.sleep(1)
        said.write_text("ended")
        raise ValueError("as the actor says whose value is asked for")

    actor = actor_of(cpus=0.5, gpus=0.0)
    rehearsed = actor.rehearse.remote(slow)
    while not said.exists():
        time.sleep(0.05)
    make = [ray.put(lambda: partial(str, said.read_text()))]
    assert ray.get(actor.work.remote(make)) == "ended"
    assert ray.get(rehearsed) is None
    idle.leave(actor, 0.5, 0.0, beside=0.5)


@pytest.mark.usefixtures("cluster")
def test_pools_that_follow_one_another_share_actors_until_a_task_needs_their_place() -> None:
    idle.make_room()
    said: list[tuple[str, int]] = []

    def ask(word: str) -> None:
        pool = Pool(lambda: lambda: (word, os.getpid()), most=1, cpus=0.5, spare=1.0)
        pool.resize(waiting=1)
        pool.submit()
        said.extend(pool.take(call) for call in list(pool.pending))
        pool.close()

    checked = called(os.getpid, cpus=0.5, gpus=0, beside=0.5)
    ask("first")
    assert cluster.in_task(lambda: 3, cpus=0.5) == 3
    ask("second")
    assert cluster.in_task(lambda: 3, cpus=1.0) == 3
    ask("third")
    words, processes = zip(*said, strict=True)
    assert words == ("first", "second", "third"), "each pool has its own worker"
    assert checked == processes[0] == processes[1] != processes[2]


@pytest.mark.usefixtures("cluster")
def test_another_images_map_is_found_where_it_is(config: Config) -> None:
    """The partners are those of ``partners`` on all images of a set, and so are their maps."""
    run, rng = RunDir(config.output, config), np.random.default_rng(0)
    rows = [
        {
            "image_id": f"{i}",
            "split": ("train", "validation", "test", None)[rng.integers(4)],
            "map": rng.random(64).astype(np.float32).tolist(),
        }
        for i in range(60)
    ]
    for row in rows:
        row["error"] = "broken" if row["split"] is None or rng.random() < 0.1 else None
    for k in range(4):
        table = pa.Table.from_pylist(rows[15 * k : 15 * (k + 1)], tables.sensitivity({"map": 64}))
        units.write(run, "sensitivity", f"{k}", table)
    taken = Draw(config.compare.seed, {"train": 1 << 63})
    whole = taken(pa.Table.from_pylist(rows, tables.sensitivity({"map": 64})))
    expected: dict[str, list[float]] = {}
    for split in ("train", "validation", "test"):
        ids = [r["image_id"] for r in whole.to_pylist() if r["split"] == split and not r["error"]]
        maps_ = [rows[int(i)]["map"] for i in ids]
        expected |= {ids[i]: maps_[k] for i, k in enumerate(partners(ids, taken.seed))}
    found: dict[str, Any] = {}
    for unit, drawn in partners_of(run, taken).items():
        stored = load_unit(run, "sensitivity", unit)["image_id"].to_pylist()
        ids = [image_id for image_id in stored if image_id in expected]
        found |= dict(zip(ids, drawn.maps(run, ids).tolist(), strict=True))
    assert found == expected
