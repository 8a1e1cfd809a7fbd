"""Builds a model from its name: a reference network, torchvision's, timm's, or a user's factory.

May import ``errors`` and below.
"""

from sparsegpt_core.zoo.registry import ModelShape, build_model, registered

__all__ = ["ModelShape", "build_model", "registered"]
