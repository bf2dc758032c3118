"""The command line: ``sensloc COMMAND``, and each command as a script in ``jobs/``.

What takes long to import is imported by the command that needs it.
"""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from sensloc import __version__
from sensloc.arguments import Changes, Data, Images, Localizer, Output, Run, Toml
from sensloc.command import (
    Job,
    always,
    execute,
    existing,
    never,
    on_config,
    on_run,
    unless_finished,
)
from sensloc.config import Resources, absolute, first_lines, read_config
from sensloc.report import status as progress
from sensloc.report.exports import Format
from sensloc.report.messages import errors_as_messages
from sensloc.store.run import RunDir

STAGES = {
    "manifest": "Read the annotations, measure the images and draw the sets.",
    "classifier": "Train the demo's network; any other brings its weights along.",
    "foreground": "Learn the read-out of the foreground map, from some of the images.",
    "sensitivity": "Make the map of every image, by one backward pass.",
    "fit": "Learn the linear map, and choose on validation.",
    "localizer": "Learn the confidence, and write all that `sensloc predict` needs.",
    "figure": "Draw ten test images with their maps and boxes: examples.png.",
}
"""Name -> description of the stages that are commands beside ``evaluate``, which is more."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Finds objects in images with a classifier that was never trained to locate anything.\n\n"
    "Begin with `sensloc run demo`; then open report.html in the run's directory. "
    "Whatever stops a command, the same command goes on with it.",
)


def _version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


def _run(run: RunDir) -> str:
    from sensloc.stages.whole_run import run_all

    return run_all(run)


def _compare(run: RunDir) -> str:
    """Run it all, then judge every method of the comparison on the same test images."""
    from sensloc.comparison.compare import compare

    return f"{_run(run)}\n\n{compare(run)}\n\n{_report(run)}"


def _report(run: RunDir) -> str:
    """Write a finished run's report.html anew."""
    _stage("report")(run)
    return f"open {run.at('report.html')}"


def _coco(run: RunDir) -> str:
    """Write a finished run's test images and boxes as COCO JSON."""
    from sensloc.stages.views.coco import coco

    return coco(run)


def _pack(run: RunDir) -> str:
    """Pack annotated images into tar shards, for the layout "webdataset"."""
    from sensloc.stages.pack import pack

    return pack(run)


def _stage(name: str) -> Job:
    def job(run: RunDir) -> None:
        from sensloc.stages.whole_run import run_stage

        run_stage(run, name)

    return job


@app.command()
@errors_as_messages()
def configs(
    name: Annotated[str | None, typer.Argument(help="Print this one, to begin one's own.")] = None,
) -> None:
    """List the named configs, which `sensloc run NAME` takes, or print one."""
    if name is not None:
        print(read_config(name), end="")
        return
    for named, line in first_lines().items():
        print(f"{named:25}{line}")


@app.command()
@errors_as_messages()
def init(
    folder: Annotated[str, typer.Argument(help="Photographs and their boxes: folder or URL.")],
    output: Annotated[
        str | None, typer.Option(help="The file to write; without it, the folder's name .toml.")
    ] = None,
) -> None:
    """Write a commented config for a folder of photographs and boxes, by looking at it."""
    from sensloc.init.start import start

    print(start(absolute(folder), output))


@app.command()
def run(
    config: Toml,
    data: Data = None,
    output: Output = None,
    changes: Changes = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Then every method of the comparison too.")
    ] = False,
) -> None:
    """Run it all: manifest, sensitivity maps, linear map, CorLoc, localizer, report.

    Stages that the run directory already holds complete are not run again.
    """
    from sensloc.stages.whole_run import STAGES

    job, needs_ray = (_compare, always) if compare else (_run, unless_finished(*STAGES))
    on_config(job, needs_ray)(config, data, output, changes)


@app.command()
@errors_as_messages()
def predict(
    run: Localizer,
    images: Images,
    output: Annotated[str, typer.Option(help="Folder or URL for the boxes.")],
    format: Annotated[
        list[Format] | None,
        typer.Option(help="Beside the Parquet files; may be repeated. Without it: coco."),
    ] = None,
    review: Annotated[int, typer.Option(min=0, help="Write so many of the least sure too.")] = 0,
    actors: Annotated[int, typer.Option(help="Networks held at once.")] = 2,
    cpus_per_actor: float = 0.5,
    gpus_per_actor: float = 0.0,
) -> None:
    """Find boxes in images that nobody annotated, by a finished run."""
    from sensloc.stages import predict as stage

    resources = Resources(
        actors=actors, cpus_per_actor=cpus_per_actor, gpus_per_actor=gpus_per_actor
    )
    localizer = absolute(run)
    boxes = RunDir.open(stage.prediction(localizer, images, output, resources))
    formats = format or [Format.COCO]
    needs_ray = unless_finished("predict", *formats)
    execute(boxes, lambda boxes: stage.predict(boxes, localizer, formats, review), needs_ray)


@app.command()
@errors_as_messages()
def explain(
    run: Localizer,
    image: Annotated[str, typer.Argument(help="An image: path or URL.")],
    output: Annotated[str, typer.Option(help="The picture: path or URL of a .png.")],
) -> None:
    """Draw why a finished run's box is where it is: the image, its heat maps, the box."""
    from sensloc.report import panels

    print(panels.write(run, image, output))


@app.command()
@errors_as_messages()
def evaluate(
    run: Annotated[
        str, typer.Argument(help="A finished run, or a copy of its localizer/; or see above.")
    ],
    config: Annotated[
        str | None,
        typer.Argument(help="A TOML file, of which the name, data set and resources are taken."),
    ] = None,
    data: Data = None,
    output: Output = None,
    changes: Changes = None,
) -> None:
    """Judge a finished RUN on all images of the annotated data set of a CONFIG, into --output.

    `sensloc evaluate CONFIG` is a single stage: that run's own test images are judged.
    """
    if config is None:
        return on_config(_stage("evaluate"))(run, data, output, changes)
    if output is None:
        sys.exit("error: name a folder or URL for the evaluation: --output")
    from sensloc.stages import other_data
    from sensloc.stages.fitted import FittedRun

    fitted = FittedRun.read(run)
    elsewhere = RunDir.open(fitted.config_on(config, data, output, changes or ()))
    execute(elsewhere, lambda elsewhere: other_data.judge(elsewhere, fitted))


@app.command()
@errors_as_messages()
def status(run: Run) -> None:
    """Say how far a run is, and what goes on with it.

    Exit code: 0 complete, 3 incomplete, 4 a job is at work, 5 failed, 1 no run there.
    """
    found = existing(run)
    state = progress.status(found)
    print(state.text(found.url))
    sys.exit(state.code)


@app.command()
@errors_as_messages()
def diff(
    first: Run,
    second: Annotated[str, typer.Argument(help="Another run's directory.")],
    split: Annotated[
        Literal["test", "validation"], typer.Option(help="The images that are taken.")
    ] = "test",
    iou: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="From which a box is right; by default the first run's."),
    ] = None,
) -> None:
    """Compare two evaluated runs, method by method, on the images that both have judged."""
    from sensloc.stages.views import diff as view

    print(view.diff(existing(first), existing(second), split, iou))


app.command("compare")(on_config(_compare))
app.command("report")(on_run(_report))
app.command("coco")(on_run(_coco))
app.command("pack")(on_config(_pack))
for name, description in STAGES.items():
    command = on_config(_stage(name), never if name == "figure" else always)
    app.command(name, help=description, rich_help_panel="Single stages")(command)


def script(file: str) -> None:
    """Run the command that a script is named after, on the script's own arguments."""
    name = Path(file).stem
    group = typer.main.get_group(app)
    group.commands[name](prog_name=f"python jobs/{name}.py")
