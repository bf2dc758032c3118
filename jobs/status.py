"""How far a run is, stage by stage, and the command that goes on with it.

Exit code: 0 complete, 3 incomplete, 4 a job is at work, 5 failed, 1 no run there.
"""

from sensloc.cli import alone, status

if __name__ == "__main__":
    alone(status, __doc__)
