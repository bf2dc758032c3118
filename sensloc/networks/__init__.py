"""The networks whose gradients are read: one file per source, what makes them ready, classes.

What makes a network ready, finds its taps and reads its weights needs torch alone: pydantic is for
the config's sections, the sources.
"""
