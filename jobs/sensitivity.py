"""One stage of a run: sensitivity. The stages before it must be complete."""

from sensloc.cli import stage

if __name__ == "__main__":
    stage("sensitivity", __doc__)
