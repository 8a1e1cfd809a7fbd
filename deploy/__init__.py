"""Engines: building them, running them, measuring them, comparing dense with sparse. Never torch.

Modules here import without TensorRT, PyCUDA or a GPU, and keep to syntax that Python 3.9 reads.
"""
