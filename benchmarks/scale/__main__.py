"""Run the whole job on ever more rows, with a tiny network: seconds per row, memory, disk."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.scale import SIZES, rehearse
from sensloc.report.messages import errors_as_messages


@errors_as_messages()
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
    """Run the whole job on ever more rows, with a tiny network: seconds per row, memory, disk."""
    logging.getLogger("benchmarks").setLevel(logging.INFO)
    print(rehearse(config, data, output, rows or SIZES, only_make) or "made")


if __name__ == "__main__":
    typer.run(scale)
