"""ONNX: writes a model, audits its 2:4 pattern, and compares its outputs with PyTorch's.

May import ``sparsegpt_core``. Exports nothing itself: ``audit`` must load without torch, which the other rooms need.
"""
