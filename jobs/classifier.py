"""One stage of a run: classifier. The stages before it must be complete."""

from sensloc.cli import stage

if __name__ == "__main__":
    stage("classifier", __doc__)
