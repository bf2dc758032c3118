"""One stage of a run: sensitivity. The stages before it must be complete."""

from sensloc.cli import main
from sensloc.stages.sensitivity import sensitivity

if __name__ == "__main__":
    main(sensitivity, __doc__)
