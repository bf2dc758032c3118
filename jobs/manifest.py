"""One stage of a run: manifest. The others must be complete up to here."""

from sensloc.cli import main
from sensloc.stages import STAGES

if __name__ == "__main__":
    main(STAGES["manifest"], __doc__)
