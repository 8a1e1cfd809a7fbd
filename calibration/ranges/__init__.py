"""Chooses the range of each INT8 activation from its histogram.

May import ``sparsegpt_core``'s torch-free modules, and never torch.
"""

from calibration.ranges.ranges import calibrate
from calibration.ranges.thresholds import METHODS

__all__ = ["METHODS", "calibrate"]
