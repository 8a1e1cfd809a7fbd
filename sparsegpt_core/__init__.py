"""Pruning mathematics: patterns, layout, statistics, solvers, whole networks, the reference zoo.

Importing this package loads nothing heavy. ``errors``, ``reasons``, ``patterns``, ``artifacts`` and
``progress`` never import torch; the ONNX auditor and ``deploy`` build on them.
"""

import logging

__version__ = "0.1.0"

# Messages reach whoever configures logging; without this, Python would print them beside the command's own.
logging.getLogger(__name__).addHandler(logging.NullHandler())
