"""Measurements that need a GPU with sparse tensor cores: ``benchmarks/gpu/run.sh OUT``.

``models`` and ``pruning`` need torch. ``engines``, ``questions`` and ``accuracy`` do not, and run on Python 3.9.
"""
