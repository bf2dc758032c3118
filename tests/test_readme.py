"""What the pages name is there: files, commands, tests."""

import re
import shlex

import pytest
from conftest import ROOT
from typer.main import get_group

from sensloc.cli import app

PAGES = sorted(page for page in ROOT.rglob("*.md") if not {".venv", "runs", "data"} & {*page.parts})
TEXT = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}
NAMED = {
    (page, path)
    for page, text in TEXT.items()
    for path in re.findall(r"\b(?:jobs|conf|cluster|benchmarks|docs)/\w+\.\w+", text)
}
TYPED = {
    (page, line)
    for page, text in TEXT.items()
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if re.search(r"\bsensloc \w|-m benchmarks\.|^make ", line)
}


@pytest.mark.parametrize(("page", "path"), sorted(NAMED))
def test_files_that_are_named_are_there(page: str, path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize(("page", "line"), sorted(TYPED))
def test_commands_that_are_named_exist_with_their_options(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif "-m" in words:
        module = words[words.index("-m") + 1].replace(".", "/")
        assert (ROOT / f"{module}.py").is_file() or (ROOT / module / "__main__.py").is_file()
    else:
        program = next(i for i, word in enumerate(words) if word.endswith("sensloc"))
        command = get_group(app).commands[words[program + 1]]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options


def test_tests_that_are_named_exist() -> None:
    """A promise names a file of tests, and the tests in it."""
    promises = re.findall(r"`(test_\w+\.py)`([^;|)]*)", "".join(TEXT.values()))
    assert promises
    for file, names in promises:
        source = (ROOT / "tests" / file).read_text()
        for name in re.findall(r"`(test_\w+)`", names):
            assert f"\ndef {name}(" in source, f"{file} has no {name}"
