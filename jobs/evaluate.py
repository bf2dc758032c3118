"""One stage of a run: evaluate. The stages before it must be complete."""

from sensloc.cli import main
from sensloc.stages.evaluate import evaluate

if __name__ == "__main__":
    main(evaluate, __doc__)
