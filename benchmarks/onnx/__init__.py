"""ONNX files as networks to prune: time against the PyTorch door, accuracy against other tools; see README.md."""
