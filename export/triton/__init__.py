"""Writes a Triton model repository.

May import ``audit`` and ``sparsegpt_core``.
"""

from export.triton.config import TritonSettings
from export.triton.repository import PlanSignature, write_repository

__all__ = ["PlanSignature", "TritonSettings", "write_repository"]
