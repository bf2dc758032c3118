"""``sensloc explain`` as a script, which is what `ray job submit` takes."""

from sensloc.cli import script

if __name__ == "__main__":
    script(__file__)
