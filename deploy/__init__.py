"""Engines: builds them, runs them, measures them, and compares dense with sparse.

May import ``export.audit`` and the torch-free modules of ``sparsegpt_core`` and ``calibration``; never torch. Every
module loads without TensorRT, PyCUDA and a GPU, and keeps to the syntax of Python 3.9.
"""
