"""The time of pruning, relative to the dense forward pass and to other libraries; see README.md."""
