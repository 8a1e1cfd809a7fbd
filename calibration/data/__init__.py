"""Opens data sets. Training and evaluation images have different types, so that they cannot be mixed up.

May import ``sparsegpt_core``'s torch-free modules, and never torch.
"""

from calibration.data.splits import Batch, Data, EvaluationSplit, TrainingSplit, open_data, subset
from calibration.data.stratified_draw import Indices, draw

__all__ = ["Batch", "Data", "EvaluationSplit", "Indices", "TrainingSplit", "draw", "open_data", "subset"]
