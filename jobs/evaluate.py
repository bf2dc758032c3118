"""One stage of a run: evaluate. The stages before it must be complete."""

from sensloc.cli import stage

if __name__ == "__main__":
    stage("evaluate", __doc__)
