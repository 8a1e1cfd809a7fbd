"""ONNX: writing it, auditing it, and proving that it computes what the PyTorch model does.

``audit`` needs onnx and NumPy alone; the writer needs torch.
"""
