"""The named configs: the files of ``conf/``, which a wheel holds too."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]

FOLDERS = (PACKAGE / "conf", PACKAGE.parent / "conf")
"""Where they are in an installed package, and beside it in a checkout."""


def named_configs() -> dict[str, Path]:
    """Return the files of the named configs by their names, sorted."""
    folder = next((folder for folder in FOLDERS if folder.is_dir()), FOLDERS[0])
    return {file.stem: file for file in sorted(folder.glob("*.toml"))}


def located(name: str) -> str:
    """Return where a config is: a file or URL is itself, a name is its file in ``conf/``."""
    named = named_configs()
    return str(named[name]) if name in named and not Path(name).is_file() else name


def first_lines() -> dict[str, str]:
    """Return the first line of each named config, which is a comment, without its mark."""
    return {
        name: file.read_text().partition("\n")[0].removeprefix("# ")
        for name, file in named_configs().items()
    }
