"""Benchmarks. They are not part of the installed packages."""
