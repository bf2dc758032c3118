"""The arguments and options that several commands share."""

from typing import Annotated

import typer

Toml = Annotated[
    str,
    typer.Argument(help="The run's TOML file: path, URL, or a name that `sensloc configs` lists."),
]
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
Localizer = Annotated[str, typer.Argument(help="A finished run, or a copy of its localizer/.")]
Images = Annotated[
    str,
    typer.Argument(
        help="Folder or URL (any depth), pattern such as 'photos/**/*.jpg', one image, tar shards "
        "such as 's3://b/*.tar', or a .csv or .parquet with a column uri."
    ),
]
