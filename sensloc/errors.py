"""The errors that a user can mend: each message says what is wrong, where, and what to do."""


class SenslocError(Exception):
    """The base of these errors: the command line prints its message and nothing else."""


class StorageError(SenslocError):
    """The place where files are does not answer, or refuses: no file's own fault."""


class ClassifierError(SenslocError):
    """A classifier cannot be built: the message names the config key and what to do."""


class DatasetError(SenslocError):
    """The data set as a whole cannot be read: the message names the file and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message, 2000))


def one_line(text: str, most: int = 1000) -> str:
    """Return a text as one line that any terminal and table can hold.

    What does not print (line ends, NUL, bytes that are not UTF-8) is escaped; of more than
    ``most`` characters the middle is left out.
    """
    escaped = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in _ends(text, most)
    )
    return _ends(escaped, most)


def shown(value: object) -> str:
    """Return Python's own way to write a value, shortened for a message."""
    return one_line(repr(value), 100)


def _ends(text: str, most: int) -> str:
    """Return a text of at most ``most`` characters: of a longer one only its two ends."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2 - 2]} ... {text[3 - most // 2 :]}"
