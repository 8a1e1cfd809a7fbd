"""Builds a network from its name: a reference network, one of torchvision or timm, or the user's factory.

May import ``errors`` and below.
"""

import sparsegpt_core.zoo.reference  # noqa: F401  registers the reference networks
from sparsegpt_core.zoo.arguments import parse_arguments
from sparsegpt_core.zoo.image_preparation import data_config
from sparsegpt_core.zoo.registry import ModelShape, build_model, registered, runs_code, takes_num_classes

__all__ = [
    "ModelShape",
    "build_model",
    "data_config",
    "parse_arguments",
    "registered",
    "runs_code",
    "takes_num_classes",
]
