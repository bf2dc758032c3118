"""One stage of a run: figure. The stages before it must be complete."""

from sensloc.cli import main
from sensloc.stages.figure import figure

if __name__ == "__main__":
    main(figure, __doc__)
