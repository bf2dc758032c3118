"""One stage of a run: fit. The stages before it must be complete."""

from sensloc.cli import main
from sensloc.stages.fit import fit

if __name__ == "__main__":
    main(fit, __doc__)
