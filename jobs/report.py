"""A finished run's report.html, made anew: one page that opens from disk."""

from sensloc.cli import alone, report

if __name__ == "__main__":
    alone(report, __doc__)
