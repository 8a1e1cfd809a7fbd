"""Pruning mathematics: patterns, layout, statistics, solvers, whole networks, the reference zoo.

Importing this package loads nothing heavy. ``errors``, ``reasons``, ``patterns``, ``artifacts`` and
``progress`` never import torch; the ONNX auditor and ``deploy`` build on them.
"""

__version__ = "0.1.0"
