"""The errors that a user can mend: each message says what is wrong, where, and what to do."""


class SenslocError(Exception):
    """Base of them all: the command line prints its message and nothing else."""
