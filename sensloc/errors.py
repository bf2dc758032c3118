"""The errors that a user can mend: each message says what is wrong, where, and what to do."""


class SenslocError(Exception):
    """Base of them all: the command line prints its message and nothing else."""


class StorageError(SenslocError):
    """The place where files are does not answer, or refuses: no file's own fault."""
