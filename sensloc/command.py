"""From work on a run directory to a command: the config, the lock, Ray, errors as messages."""

import logging
from collections.abc import Callable
from contextlib import ExitStack

from sensloc.arguments import Changes, Data, Output, Run, Toml
from sensloc.config import absolute, load_config
from sensloc.report.messages import errors_as_messages
from sensloc.store.run import RunDir

JOB_COPY = "/runtime_resources/working_dir_files/"
"""In the path of the folder that `ray job submit --working-dir` makes on the cluster."""

log = logging.getLogger(__name__)

Job = Callable[[RunDir], str | None]
"""Work on a run; returns the text to print at the end."""

Question = Callable[[RunDir], bool]
"""A question about a run."""


def always(run: RunDir) -> bool:
    """Answer yes, whatever the run."""
    return True


def never(run: RunDir) -> bool:
    """Answer no, whatever the run."""
    return False


def unless_finished(*stages: str) -> Question:
    """Return whether any of these stages is not complete, as a question."""
    return lambda run: not all(run.finished(stage) for stage in stages)


def execute(run: RunDir, job: Job, needs_ray: Question = always) -> None:
    """Lock a run directory, connect to Ray if it is needed, do a job and print what it returns."""
    if JOB_COPY in run.url:
        log.warning("%s goes with the submitted job's copy of your files: pass --output", run.url)
    with ExitStack() as held:
        held.enter_context(run.alone())
        if needs_ray(run):
            from sensloc.engine.cluster import connected

            held.enter_context(connected())
        text = job(run)
    if text is not None:
        print(text)


def on_config(job: Job, needs_ray: Question = always) -> Callable[..., None]:
    """Return the command that does a job, on Ray or not, on the run that a TOML file names."""

    @errors_as_messages()
    def command(
        config: Toml, data: Data = None, output: Output = None, changes: Changes = None
    ) -> None:
        values = load_config(config, data=data, output=output, changes=changes or ())
        execute(RunDir.open(values), job, needs_ray)

    command.__doc__ = job.__doc__
    return command


def on_run(job: Job) -> Callable[..., None]:
    """Return the command that does a job on the run in a directory, without Ray."""

    @errors_as_messages()
    def command(run: Run) -> None:
        execute(existing(run), job, never)

    command.__doc__ = job.__doc__
    return command


def existing(run: str) -> RunDir:
    """Return the run in a directory, whoever made it.

    Raises:
        RunError: there is none, or this version of sensloc cannot read its config.
    """
    return RunDir.found(absolute(run.rstrip("/")))
