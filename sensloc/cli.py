"""The command line: ``sensloc``, and its commands one by one in ``jobs/``.

What takes long to import is imported by the command that needs it.
"""

import logging
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from sensloc.config import Config, Resources, absolute, load_config
from sensloc.errors import SenslocError
from sensloc.report.exports import Format
from sensloc.report.status import status as look
from sensloc.store.run import RunDir

JOB_COPY = "/runtime_resources/working_dir_files/"
"""In the path of the folder that `ray job submit --working-dir` makes on the cluster."""

LOG = "%(asctime)s %(name)s: %(message)s"

log = logging.getLogger(__name__)

Job = Callable[[RunDir], Any]
"""From a run to what is printed at the end."""

Toml = Annotated[str, typer.Argument(help="The run's TOML file: path or URL, see conf/.")]
Data = Annotated[
    str | None, typer.Option(help="Folder or URL of the data set, instead of dataset.root.")
]
Output = Annotated[
    str | None, typer.Option(help="Run directory: folder or URL, instead of the file's.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Change a value of the file, such as resources.actors=8; may be repeated. The run "
        "records its whole config, with the change.",
    ),
]
Run = Annotated[str, typer.Argument(help="A run's directory: folder or URL.")]
Images = Annotated[
    str,
    typer.Argument(
        help="Folder or URL (any depth), pattern such as 'photos/**/*.jpg', one image, tar shards "
        "such as 's3://b/*.tar', or a .csv or .parquet with a column uri."
    ),
]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Finds objects in images with a classifier that was never trained to locate anything.\n\n"
    "Begin with `sensloc run conf/demo.toml`; then open report.html in the run's directory. "
    "Whatever stops a command, the same command goes on with it.",
)
bench = typer.Typer(no_args_is_help=True, help="Measure: the README's figures of speed.")
app.add_typer(bench, name="bench")


# --------------------------------------------------------------------------- making commands


def _found(run: str) -> RunDir:
    return RunDir.found(absolute(run.rstrip("/")))


def _of_config(job: Job) -> Callable[..., None]:
    """The command that does a job on the run that a TOML file names."""

    def command(
        config: Toml,
        data: Data = None,
        output: Output = None,
        changes: Changes = None,
    ) -> None:
        _on_config(job, config, data, output, changes)

    return command


# --------------------------------------------------------------------------- commands


@app.command()
def run(
    config: Toml,
    data: Data = None,
    output: Output = None,
    changes: Changes = None,
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Then every method of the comparison too."),
    ] = False,
) -> None:
    """Run it all: manifest, sensitivity maps, linear map, CorLoc, localizer, report."""
    _on_config(compared if compare else localized, config, data, output, changes)


@app.command()
def predict(
    run: Annotated[str, typer.Argument(help="A finished run, or a copy of its localizer/.")],
    images: Images,
    output: Annotated[str, typer.Option(help="Folder or URL for the boxes.")],
    format: Annotated[
        list[Format] | None,
        typer.Option(help="Beside the Parquet files; may be repeated. Without it: coco."),
    ] = None,
    actors: Annotated[int, typer.Option(help="Networks held at once.")] = 2,
    cpus_per_actor: float = 0.5,
    gpus_per_actor: float = 0.0,
) -> None:
    """Find boxes in images that nobody annotated, by a finished run."""
    from sensloc.stages import predict as stage

    where = absolute(run)

    def config() -> Config:
        resources = Resources(
            actors=actors, cpus_per_actor=cpus_per_actor, gpus_per_actor=gpus_per_actor
        )
        return stage.prediction(where, images, output, resources)

    _do(
        lambda: RunDir.open(config()),
        lambda made: stage.predict(made, where, format or [Format.COCO]),
    )


@app.command()
def report(run: Run) -> None:
    """Write a finished run's report.html anew."""

    def job(found: RunDir) -> str:
        from sensloc.stages.views.report import report as stage

        stage(found)
        return f"open {found.at('report.html')}"

    _do(lambda: _found(run), job, cluster=False)


@app.command()
def coco(run: Run) -> None:
    """Write a finished run's test images and boxes as COCO JSON."""

    def job(found: RunDir) -> str:
        from sensloc.stages.views.coco import coco as stage

        return stage(found)

    _do(lambda: _found(run), job, cluster=False)


@app.command()
def status(run: Run) -> None:
    """Say how far a run is, and what goes on with it.

    Exit code: 0 complete, 3 incomplete, 4 a job is at work, 5 failed, 1 no run there.
    """
    try:
        found = _found(run)
        state = look(found)
    except SenslocError as error:
        sys.exit(f"error: {error}")
    print(state.text(found.url))
    sys.exit(state.code)


@bench.command()
def scale(
    config: Annotated[str, typer.Argument(help="conf/rehearsal.toml")],
    data: Annotated[str, typer.Option(help="Tiny ImageNet, whose images are copied.")],
    output: Annotated[Path, typer.Option(help="Folder for data sets and runs, some 4 GB.")],
    rows: Annotated[
        list[int] | None,
        typer.Option(help="Images; may be repeated. Without it: 3000, 30000 and 300916."),
    ] = None,
    only_make: Annotated[
        bool, typer.Option("--only-make", help="Make the data sets, run no job.")
    ] = False,
) -> None:
    """The whole job on ever more rows, with a tiny network: seconds per row, memory, disk."""
    from sensloc.rehearsal import SIZES, rehearse

    logging.basicConfig(level=logging.INFO, format=LOG)
    try:
        print(rehearse(config, data, output, rows or SIZES, only_make) or "made")
    except SenslocError as error:
        sys.exit(f"error: {error}")


@bench.command()
def latency(
    run: Run,
    images: Images,
    count: Annotated[int, typer.Option(help="Images to take, the first ones.")] = 64,
) -> None:
    """Milliseconds per image of a localizer, on this CPU, with one thread."""
    from itertools import islice

    from sensloc.datasets import Unboxed
    from sensloc.images.fetch import ImageError, fetch
    from sensloc.latency import measure, text
    from sensloc.prediction.localizer import Localizer
    from sensloc.stages.predict import images_at

    try:
        reader = Unboxed(images_at(absolute(images)))
        found = (row.uri for unit in reader.units() for row in reader.read(unit) if row.uri)
        files = []
        for data in fetch(list(islice(found, count))):
            if isinstance(data, ImageError):
                raise data
            files.append(data)
        print(text(measure(Localizer.load(absolute(run)), files), len(files)))
    except (SenslocError, ImageError) as error:
        sys.exit(f"error: {error}")


# --------------------------------------------------------------------------- jobs


def localized(run: RunDir) -> str:
    """The main run."""
    from sensloc.stages.whole_run import localize

    return localize(run)


def packed(run: RunDir) -> None:
    """Annotated images of any layout, into tar shards."""
    from sensloc.stages.pack import pack

    pack(run)


def rates(run: RunDir) -> str:
    """Fetching single files beside tar shards."""
    from sensloc.stages.storage_rates import storage_rates

    return storage_rates(run)


def compared(run: RunDir) -> str:
    """The main run, then the comparison."""
    from sensloc.comparison.compare import compare
    from sensloc.stages.views.report import report

    said = f"{localized(run)}\n\n{compare(run)}"
    report(run)
    return f"{said}\n\nopen {run.at('report.html')}"


def stage(name: str, description: str) -> None:
    """One stage of the main run, as a command of its own."""

    def job(run: RunDir) -> None:
        from sensloc.stages.whole_run import FUNCTIONS

        FUNCTIONS[name](run)

    main(job, description)


def main(job: Job, description: str) -> None:
    """A job on the run that a TOML file names, as a command of its own."""
    alone(_of_config(job), description)


def alone(command: Callable[..., None], description: str | None = None) -> None:
    """One command, as a script of its own."""
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(help=description)(command)
    single()


def _on_config(
    job: Job, config: str, data: str | None, output: str | None, changes: list[str] | None
) -> None:
    _do(
        lambda: RunDir.open(load_config(config, data=data, output=output, changes=changes or ())),
        job,
    )


pack = _of_config(packed)
storage = _of_config(rates)
app.command("pack", help='Pack images into tar shards, for the layout "webdataset".')(pack)
bench.command("storage", help="Single files beside tar shards: images/s of one process.")(storage)


def _do(opened: Callable[[], RunDir], job: Job, cluster: bool = True) -> None:
    """Open, lock, connect, call, print; a known error is one message and exit code 1."""
    logging.basicConfig(level=logging.INFO, format=LOG)
    try:
        run = opened()
        if JOB_COPY in run.url:
            log.warning(
                "%s goes with the submitted job's copy of your files: pass --output", run.url
            )
        with run.alone(), _connected() if cluster else nullcontext():
            said = job(run)
    except SenslocError as error:
        # Ray raises a worker's error again as a subclass whose text is the worker's traceback,
        # and adds advice on retries
        said_by_ray = re.compile(r"(\n|\\n)Failed to apply UDF.*", re.DOTALL)
        sys.exit(f"error: {said_by_ray.sub('', str(getattr(error, 'cause', error)))}")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        sys.exit(f"error: {where}: {first['msg']} (got {first['input']!r})")
    except KeyboardInterrupt:
        sys.exit("stopped: the same command goes on from here")
    if said is not None:
        print(said)


def _connected() -> AbstractContextManager[None]:
    from sensloc.engine.cluster import connected

    return connected()
