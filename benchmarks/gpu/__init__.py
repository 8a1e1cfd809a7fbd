"""What only a GPU with sparse tensor cores shows: ``benchmarks/gpu/run.sh OUT``.

``models`` and ``pruning`` need torch; ``engines``, ``questions`` and ``accuracy`` do not, and read with Python 3.9.
"""
