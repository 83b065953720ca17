"""Benchmarks: both sides measured in one run, as ratios. ``python -m tests.benchmarks --help``."""
