"""What the other examples start from: scikit-learn's handwritten digits, and a network that knows them."""

from __future__ import annotations

import torch
from torch import nn

import sparsegpt_trt as st
from calibration.data import Data, open_data
from calibration.training import TrainSettings, train

__all__ = ["trained_network"]


def trained_network() -> tuple[nn.Module, Data]:
    """Train a CNN of six convolutions and two linear layers, which takes a few seconds of one core.

    Returns:
        The network, in eval mode, and the digits: 1198 training and 599 evaluation images of (1, 8, 8).
    """
    torch.manual_seed(0)
    data = open_data("digits")
    network = st.build_model("cifar_cnn", st.ModelShape((1, 8, 8), num_classes=10))
    train(network, data, TrainSettings(epochs=4, batch_size=64, learning_rate=0.03, precision="fp32", augment="none"))
    return network.eval(), data
