"""One stage of a run: classifier. The stages before it must be complete."""

from sensloc.cli import main
from sensloc.stages.classifier import classifier

if __name__ == "__main__":
    main(classifier, __doc__)
