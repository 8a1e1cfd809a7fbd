"""A grid of pruning runs in a pool of processes: checkpoints × methods × patterns × calibration sizes × seeds.

``grid`` says which cells there are, ``subjects`` what the checkpoints are, ``pool`` runs ``cell`` in processes,
``store`` keeps what came of it, ``tables`` and ``pictures`` show it, and ``conductor`` has them play together.
"""
