"""Every method of the config's [compare] on the same test images: compare/table.md and plots.

What the run directory lacks of the main run is made first; what it holds is not made again.
"""

from sensloc.cli import main
from sensloc.run import RunDir
from sensloc.stages.compare import compare
from sensloc.stages.localize import localize


def job(run: RunDir) -> str:
    """The main run, then the comparison."""
    return f"{localize(run)}\n\n{compare(run)}"


if __name__ == "__main__":
    main(job, __doc__)
