"""Estimates how long a GPU takes for a layer, dense and with 2:4 weights.

May import ``graph``, ``machine`` and below.
"""

from deploy.roofline.gpus import DEFAULT_GPU, GPUS, GPUSpec, find_spec
from deploy.roofline.kernel_time import KernelTime, dense_time, sparse_time

__all__ = ["DEFAULT_GPU", "GPUS", "GPUSpec", "KernelTime", "dense_time", "find_spec", "sparse_time"]
