"""``python -m sensloc``."""

from sensloc.cli import app

app(prog_name="sensloc")
