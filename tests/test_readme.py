"""What the README names is there: tests, jobs, configs, folders."""

import re

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text()
PROMISES = README.partition("## What a night's run")[2].partition("\n## ")[0]


@pytest.mark.parametrize("row", re.findall(r"^\| (?!what goes|-)(.+) \|$", PROMISES, re.MULTILINE))
def test_each_promise_names_its_tests(row: str) -> None:
    fault, happens, tests = row.split(" | ")
    assert fault
    assert happens
    files = re.findall(r"`(test_\w+\.py)`([^;]*)", tests)
    assert files
    for file, names in files:
        source = (ROOT / "tests" / file).read_text()
        for name in re.findall(r"`(test_\w+)`", names):
            assert f"\ndef {name}(" in source, f"{file} has no {name}"


def test_there_are_promises() -> None:
    assert len(re.findall(r"^\| .*`test_\w+\.py`", PROMISES, re.MULTILINE)) >= 10


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"\b(?:jobs|conf|cluster)/\w+\.\w+", README)))
)
def test_files_that_are_named_are_there(path: str) -> None:
    assert (ROOT / path).is_file()
