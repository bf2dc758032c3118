"""One stage of a run: figure. The stages before it must be complete."""

from sensloc.cli import stage

if __name__ == "__main__":
    stage("figure", __doc__)
