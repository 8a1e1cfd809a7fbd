"""The options of training and fine-tuning, as one group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from sparsegpt_cli.framework import choice
from sparsegpt_cli.options.shared import Device

__all__ = ["TrainingOptions"]


@dataclass(frozen=True)
class TrainingOptions:
    """How to train; None leaves a value to the method.

    Example:
        >>> TrainingOptions(epochs=3, device="cpu").given()
        {'epochs': 3}
    """

    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training images.")] = None
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per step.", rich_help_panel="Training")] = None
    learning_rate: Annotated[float | None, typer.Option(help="The highest learning rate of the schedule.")] = None
    weight_decay: Annotated[float | None, typer.Option(min=0, help="Weight decay of every parameter.")] = None
    schedule: Annotated[str | None, choice("one-cycle", "cosine", help="Schedule of the learning rate.")] = None
    precision: Annotated[
        str | None,
        choice(
            *("fp32", "bf16", "fp16", "auto"),
            help="Precision of training; auto: the fastest one on the device.",
            rich_help_panel="Training",
        ),
    ] = None
    label_smoothing: Annotated[
        float | None, typer.Option(min=0, help="Part of the target probability that is spread over all classes.")
    ] = None
    ema: Annotated[
        float | None,
        typer.Option(min=0, help="Keep an exponential moving average of the weights with this decay; 0: do not."),
    ] = None
    augment: Annotated[
        str | None,
        choice(
            *("none", "crop", "crop-flip", "auto"), help="Changes of the images; auto: those that suit the data set."
        ),
    ] = None
    device: Device = "auto"

    def given(self) -> dict[str, Any]:
        """Return the values that are not None, apart from the device."""
        return {name: value for name, value in vars(self).items() if value is not None and name != "device"}
