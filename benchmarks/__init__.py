"""Measuring tools: each is `python -m benchmarks.NAME`, from the checkout; nothing installs them."""
