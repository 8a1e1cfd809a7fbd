"""How long pruning takes, beside the dense forward pass and beside others; see README.md."""
