"""Opens data sets. Training and evaluation images have different types, so that they cannot be mixed up.

May import ``sparsegpt_core``'s torch-free modules, and never torch.
"""

from calibration.data.loaders import names_code
from calibration.data.splits import Batch, Data, EvaluationSplit, TrainingSplit, open_data, subset_indices
from calibration.data.stratified_draw import Indices, Labels, draw_indices

__all__ = [
    "Batch",
    "Data",
    "EvaluationSplit",
    "Indices",
    "Labels",
    "TrainingSplit",
    "draw_indices",
    "names_code",
    "open_data",
    "subset_indices",
]
