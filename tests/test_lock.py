"""One job per run directory: who is alive keeps it, who is dead needs nobody to clean up."""

import json
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from sensloc.store import lock
from sensloc.store.lock import LockedError

BEAT = 0.05

SLOW = 1.0
"""Where a beat must not be missed, however busy the machine is."""


@pytest.fixture(params=["local", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "run")
    return f"{request.getfixturevalue('bucket')}/run"


def left(url: str, content: dict[str, object], number: int = 1) -> None:
    """A lock that somebody left."""
    path = f"{url}/.lock/{number:06d}.json"
    with fsspec.open(path, "w", auto_mkdir=True) as file:
        json.dump(content, file)


def locks(url: str) -> list[str]:
    files, path = fsspec.core.url_to_fs(url)
    files.invalidate_cache()
    return [Path(found).name for found in files.glob(f"{path}/.lock/*.json")]


def unwanted() -> None:
    pytest.fail("the lock was lost")


def dead_process() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_a_second_job_is_refused_and_the_first_goes_on(url: str) -> None:
    with lock.held(url, unwanted, SLOW):
        with pytest.raises(LockedError, match=socket.gethostname()), lock.held(url, unwanted, SLOW):
            pytest.fail("two at once")
        assert (lock.holder(url) or {})["dead"] is False
    assert locks(url) == []
    assert lock.holder(url) is None
    with lock.held(url, unwanted, BEAT):
        pass


def test_a_dead_job_of_this_machine_is_followed_at_once(url: str) -> None:
    left(url, {"job": "a", "host": socket.gethostname(), "pid": dead_process(), "beat": 3})
    assert (lock.holder(url) or {})["dead"] is True
    began = time.monotonic()
    with lock.held(url, unwanted, beat=100):
        assert locks(url) == ["000002.json"]
    assert time.monotonic() - began < 100, "there was nothing to wait for"
    assert locks(url) == []


def test_a_job_of_another_machine_that_is_not_renewed_is_followed(url: str) -> None:
    left(url, {"job": "a", "host": "elsewhere", "pid": 1, "beat": 3}, number=7)
    with lock.held(url, unwanted, BEAT):
        assert locks(url) == ["000008.json"]


def test_a_job_of_another_machine_that_is_renewed_is_not(url: str) -> None:
    done = threading.Event()

    def renew() -> None:
        beat = 0
        while not done.wait(BEAT):
            left(url, {"job": "a", "host": "elsewhere", "pid": 1, "beat": (beat := beat + 1)})

    keeper = threading.Thread(target=renew)
    left(url, {"job": "a", "host": "elsewhere", "pid": 1, "beat": 0})
    keeper.start()
    try:
        with pytest.raises(LockedError, match="elsewhere"), lock.held(url, unwanted, 4 * BEAT):
            pytest.fail("two at once")
    finally:
        done.set()
        keeper.join()
    assert locks(url) == ["000001.json"]


def test_of_many_that_follow_a_dead_job_one_can(url: str) -> None:
    left(url, {"job": "a", "host": socket.gethostname(), "pid": dead_process(), "beat": 3})
    inside, together = [], threading.Barrier(8)
    beat = 8 * BEAT  # nine threads on a machine at work must keep it

    def follow(name: int) -> str:
        together.wait()
        try:
            with lock.held(url, unwanted, beat):
                inside.append(name)
                time.sleep(20 * beat)
                return "held"
        except LockedError:
            return "refused"

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(follow, range(8)))
    assert said.count("held") == 1
    assert said.count("refused") == 7
    assert locks(url) == []


def test_a_listing_that_misses_the_holder_gives_no_second_lock(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the dead job's file goes, and the next one's comes, while the folder is read."""
    with lock.held(url, unwanted, beat=100):
        left(url, {"job": "b", "host": "elsewhere", "pid": 1, "beat": 0}, number=7)
        monkeypatch.setattr(lock, "_newest", lambda *_: None)
        files, path = fsspec.core.url_to_fs(url)
        files.rm_file(f"{path}/.lock/000001.json")
        with pytest.raises(LockedError, match="elsewhere"), lock.held(url, unwanted, BEAT):
            pytest.fail("two at once")
        assert locks(url) == ["000007.json"]


def test_who_follows_a_dead_job_too_late_leaves_its_successor_alone(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another job followed the dead one and ended, and a third began, since it was looked at."""
    left(url, {"job": "a", "host": "elsewhere", "pid": 1, "beat": 3})

    def meanwhile(_: object) -> bool:
        left(url, {"job": "c", "host": "beyond", "pid": 1, "beat": 0})
        return True

    monkeypatch.setattr(lock, "_is_dead", meanwhile)
    with pytest.raises(LockedError, match="beyond"), lock.held(url, unwanted, BEAT):
        pytest.fail("two at once")
    assert locks(url) == ["000001.json"]


def test_a_job_that_was_taken_over_is_told_and_leaves_the_other_alone(url: str) -> None:
    told = threading.Event()
    with lock.held(url, told.set, BEAT):
        files, path = fsspec.core.url_to_fs(url)
        left(url, {"job": "b", "host": "elsewhere", "pid": 1, "beat": 0}, number=2)
        files.rm_file(f"{path}/.lock/000001.json")
        assert told.wait(30)
    assert locks(url) == ["000002.json"]


def test_a_lock_is_renewed(url: str) -> None:
    with lock.held(url, unwanted, BEAT):
        first = lock.holder(url)
        for _ in range(200):
            if lock.holder(url) != first:
                break
            time.sleep(BEAT)
        assert lock.holder(url) != first
