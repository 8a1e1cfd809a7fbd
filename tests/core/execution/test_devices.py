"""Devices that cannot be used, and the advice for each."""

from __future__ import annotations

import pytest
import torch

from sparsegpt_core.errors import InputError
from sparsegpt_core.execution import find_device

NO_DRIVER = "Found no NVIDIA driver on your system. Please check"
HIDDEN = "No CUDA GPUs are available"


def refuse(name: str) -> InputError:
    with pytest.raises(InputError, match=f"^device '{name}' cannot be used: ") as caught:
        find_device(name)
    return caught.value


@pytest.mark.parametrize("name", ["abacus", "cuda0"])
def test_no_such_device(name: str) -> None:
    assert refuse(name).hint == "Use cpu or cuda."


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
@pytest.mark.parametrize("visible", [None, "", "1"])
def test_cuda_on_this_machine(monkeypatch: pytest.MonkeyPatch, visible: str | None) -> None:
    """PyTorch's own error. A PyTorch for the CPU alone says something else."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    error = refuse("cuda")
    if torch.version.cuda is None:
        assert error.hint == "Install a PyTorch that is built for CUDA, or set `device=cpu`."
    elif "driver" in str(error):
        assert error.hint.startswith("Install NVIDIA's driver")
    assert error.hint.endswith("`device=cpu`.")


@pytest.mark.parametrize(
    ("name", "built", "visible", "said", "advice"),
    [
        ("cuda", False, None, "Torch not compiled with CUDA enabled", "Install a PyTorch that is built for CUDA"),
        ("cuda", True, None, NO_DRIVER, "Install NVIDIA's driver. In a container, use `docker run --gpus all`"),
        ("cuda", True, "0", NO_DRIVER, "Install NVIDIA's driver"),
        ("cuda", True, "", HIDDEN, "CUDA_VISIBLE_DEVICES is ''. Set it to a GPU that `nvidia-smi -L` lists, or unset"),
        ("cuda", True, None, HIDDEN, "Use a GPU that `nvidia-smi -L` lists"),
        ("cuda:7", True, None, "CUDA error: invalid device ordinal", "Use a GPU that `nvidia-smi -L` lists"),
        ("cuda:1", True, "0", "CUDA error: invalid device ordinal", "CUDA_VISIBLE_DEVICES is '0'. Set it"),
    ],
)
def test_the_advice_fits_the_cause(monkeypatch, name: str, built: bool, visible: str | None, said: str, advice: str):
    """PyTorch's texts on machines that are not here."""

    def fails(*size: int, device: torch.device) -> None:
        raise RuntimeError(f"{said}\nsecond line")

    monkeypatch.setattr(torch, "empty", fails)
    monkeypatch.setattr(torch.version, "cuda", "13.0" if built else None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    error = refuse(name)
    assert str(error).endswith(said)
    assert error.hint.startswith(advice)
    assert error.hint.endswith("or set `device=cpu`.")
