"""One stage of a run: localizer, for jobs/predict.py. The stages before it must be complete."""

from sensloc.cli import main
from sensloc.stages.localizer import localizer

if __name__ == "__main__":
    main(localizer, __doc__)
