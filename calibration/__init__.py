"""Whatever feeds data to a model: data sets, calibration samples, evaluation, training.

``arrays`` reads data with NumPy alone; everything else needs torch.
"""
