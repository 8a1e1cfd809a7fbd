"""How torchvision and timm prepare the images for their networks."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["data_config"]


def data_config(spec: str) -> dict[str, Any]:
    """Return the image shape, mean and standard deviation of a network's pretrained weights. Nothing is downloaded.

    Args:
        spec: ``torchvision:NAME`` or ``timm:NAME``.

    Returns:
        ``mean``, ``std`` and ``image`` (C, H, W), as a checkpoint's metadata has them; empty or without ``image`` where
        the library does not tell.

    Example:
        >>> data_config("torchvision:inception_v3")
        {'mean': [0.485, 0.456, 0.406], 'std': [0.229, 0.224, 0.225], 'image': [3, 299, 299]}
        >>> data_config("simple_cnn")
        {}
    """
    source, _, name = spec.rpartition(":")
    if source == "torchvision":
        return _torchvision(name)
    return _timm(name) if source == "timm" else {}


def _torchvision(name: str) -> dict[str, Any]:
    from torchvision import models

    try:
        preset = models.get_model_weights(name).DEFAULT.transforms()
    except ValueError:  # there is no such model; building it says so
        return {}
    if not hasattr(preset, "mean"):  # detectors normalise themselves
        return {}
    config = {"mean": list(preset.mean), "std": list(preset.std)}
    if hasattr(preset, "crop_size"):
        height, width = (list(preset.crop_size) * 2)[:2]
        config["image"] = [3, height, width]
    return config


def _timm(name: str) -> dict[str, Any]:
    try:
        timm: Any = importlib.import_module("timm")
    except ImportError:  # building the model says so
        return {}
    found = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if found is None:
        return {}
    config = timm.data.resolve_data_config(pretrained_cfg=found.to_dict())
    return {"mean": list(config["mean"]), "std": list(config["std"]), "image": list(config["input_size"])}
