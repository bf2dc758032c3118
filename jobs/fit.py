"""One stage of a run: fit. The stages before it must be complete."""

from sensloc.cli import stage

if __name__ == "__main__":
    stage("fit", __doc__)
