"""Builds TensorRT engines, runs them, measures them, and compares dense with sparse ones.

May import ``export.audit`` and the torch-free modules of ``sparsegpt_core`` and ``calibration``, never torch. Every
module loads without TensorRT, PyCUDA and a GPU, and uses the syntax of Python 3.9.
"""
