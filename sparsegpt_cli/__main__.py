"""``python -m sparsegpt_cli``."""

import sys

from sparsegpt_cli.app import main

if __name__ == "__main__":  # workers of mpi4py.futures import this module under another name
    sys.exit(main())
