"""Fixtures that several test files share."""

import os
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``real_data("imagenet-mini")`` or ``("tiny-imagenet-100")``: the unpacked folder.

    The tar files lie in the folder that SENSLOC_DATA names, or in ../shared/data beside the
    checkout; a test that asks for one that is not there is skipped.
    """

    @cache
    def unpacked(name: str) -> Path:
        file = Path(os.environ.get("SENSLOC_DATA", DATA)) / f"{name}.tar"
        if not file.is_file():
            pytest.skip(f"no real images: {file} is not there; SENSLOC_DATA names its folder")
        target = tmp_path_factory.mktemp("real")
        with tarfile.open(file) as tar:
            tar.extractall(target, filter="data")
        return target / name

    return unpacked
