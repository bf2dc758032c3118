"""Measuring tools: `python -m benchmarks.NAME` from the checkout; they are not installed."""
