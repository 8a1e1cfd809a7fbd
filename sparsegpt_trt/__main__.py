"""``python -m sparsegpt_trt``."""

import sys

from sparsegpt_trt import main

sys.exit(main())
