"""Classifiers: where they come from, and how they are made ready for gradients."""
