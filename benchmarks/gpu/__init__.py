"""Measurements that need a GPU with sparse tensor cores: ``benchmarks/gpu/run.sh OUT``. README.md describes them.

``models`` and ``pruning`` need torch. The other modules do not, and run on Python 3.9.
"""
