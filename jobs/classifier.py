"""One stage of a run: classifier. The others must be complete up to here."""

from sensloc.cli import main
from sensloc.stages import STAGES

if __name__ == "__main__":
    main(STAGES["classifier"], __doc__)
