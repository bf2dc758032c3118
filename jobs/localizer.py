"""One stage of a run: localizer, for jobs/predict.py. The stages before it must be complete."""

from sensloc.cli import stage

if __name__ == "__main__":
    stage("localizer", __doc__)
