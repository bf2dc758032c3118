"""The stages of a run on Ray, and their order in ``whole_run``."""
