"""Models by name: the reference networks, torchvision's, timm's, and anybody's factory."""

from sparsegpt_core.zoo.registry import ModelShape, build_model, registered

__all__ = ["ModelShape", "build_model", "registered"]
