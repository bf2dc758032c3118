"""The class filter: the classes that a text file names are kept, and all others left alone."""

from collections.abc import Collection, Iterable

from sensloc.datasets.files import read_text
from sensloc.errors import DatasetError


def class_filter(url: str | None) -> list[str] | None:
    """Read the classes of a text file, the first word of each line; None without a file.

    It is read where the units are made and travels in them, so workers need not see the file.

    Raises:
        DatasetError: there is no such file, or it names no class.
    """
    if url is None:
        return None
    try:
        lines = read_text(url).splitlines()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DatasetError(
            f"{url}: no such file; dataset.only_classes must name a text file, one class a line"
        ) from error
    classes = sorted({line.split()[0] for line in lines if line.strip()})
    if not classes:
        raise DatasetError(f"{url}: names no class; dataset.only_classes wants one on each line")
    return classes


def require_known(only: Collection[str] | None, known: Iterable[str], where: str) -> None:
    """Refuse a class filter that names what the data set does not have.

    Raises:
        DatasetError: naming the classes that are not in ``known``, and ``where`` they should be.
    """
    unknown = sorted(set(only or ()) - set(known))
    if unknown:
        raise DatasetError(f"dataset.only_classes names {', '.join(unknown)}: not in {where}")


def keeps(only: Collection[str] | None, wnid: str) -> bool:
    """Tell whether a class passes the filter. An unknown class ("") does: its row says why."""
    return only is None or not wnid or wnid in only
