"""Draws calibration images from the training split, says how many, and makes shifted and mirrored views of them.

May import ``data`` and ``sparsegpt_core``.
"""

from calibration.sampling.augmentation import (
    AUGMENTATIONS,
    augmentation_for,
    crop_flip,
    normalised_black,
    resized_crops,
    with_views,
)
from calibration.sampling.batches import calibration_batches, held_out_batches, held_out_indices
from calibration.sampling.need import images_by_need

__all__ = [
    "AUGMENTATIONS",
    "augmentation_for",
    "calibration_batches",
    "crop_flip",
    "held_out_batches",
    "held_out_indices",
    "images_by_need",
    "normalised_black",
    "resized_crops",
    "with_views",
]
