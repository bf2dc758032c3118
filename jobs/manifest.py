"""One stage of a run: manifest. The stages before it must be complete."""

from sensloc.cli import stage

if __name__ == "__main__":
    stage("manifest", __doc__)
