"""Feeds data to a model: data sets, calibration samples, evaluation, training and fine-tuning.

May import ``sparsegpt_core``. Exports nothing itself: ``data`` and ``ranges`` must load without torch.
"""
