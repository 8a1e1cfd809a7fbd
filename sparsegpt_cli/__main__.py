"""``python -m sparsegpt_cli``."""

import sys

from sparsegpt_cli.app import main

sys.exit(main())
