"""A grid of pruning runs, here or on other machines: checkpoints × methods × patterns × calibration sizes × seeds.

May import ``options``, ``jobs``, ``framework`` and below.

``grid`` lists the cells and ``checkpoints`` loads their networks. ``cell`` computes one, and ``cell_store`` keeps its
result. ``executors`` reaches other machines. ``tables`` and ``pictures`` show the results. ``runner`` calls them in
order.
"""

from sparsegpt_cli.sweep.evaluation import Evaluator
from sparsegpt_cli.sweep.executors import open_executor
from sparsegpt_cli.sweep.grid import Grid
from sparsegpt_cli.sweep.runner import sweep

__all__ = ["Evaluator", "Grid", "open_executor", "sweep"]
