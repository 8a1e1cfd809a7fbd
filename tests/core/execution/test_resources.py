import pytest
import torch
from torch import backends, nn

from sparsegpt_core import PruneSettings, prune_model
from sparsegpt_core.execution import full_precision
from tests.support.precision import OPERATIONS, PLACES, restored_precision


def precisions():
    return [each.fp32_precision for each in PLACES]


@pytest.fixture
def restored():
    """Puts the precisions of the process back after the test."""
    with restored_precision():
        yield


@pytest.mark.parametrize(("tf32", "precision"), [(False, "highest"), (True, "high")])
def test_tf32_is_off_by_default_and_restored(tf32, precision):
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with full_precision(tf32):
        assert torch.get_float32_matmul_precision() == precision
        assert torch.backends.cudnn.allow_tf32 is tf32
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_the_precision_is_restored_after_an_error():
    before = torch.get_float32_matmul_precision()
    with pytest.raises(RuntimeError), full_precision(tf32=True):
        raise RuntimeError
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize(
    ("place", "precision"),
    [
        (backends, "tf32"),
        (backends, "ieee"),
        (backends.cuda.matmul, "tf32"),
        (backends.cudnn, "tf32"),
        (backends.cudnn.conv, "ieee"),
        (backends.cudnn.rnn, "ieee"),
        (backends.mkldnn, "bf16"),
        (backends.mkldnn.conv, "bf16"),
    ],
)
def test_fp32_precision_of_any_backend_is_replaced_and_restored(place, precision, tf32):
    place.fp32_precision = precision
    before = precisions()
    with full_precision(tf32):
        assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
        assert backends.cudnn.allow_tf32 is tf32
        reduced = {each.fp32_precision for each in OPERATIONS} - {"none", "ieee"}
        assert reduced == ({"tf32"} if tf32 else set())
    assert precisions() == before


@pytest.mark.usefixtures("restored")
def test_operations_still_follow_their_backend_afterwards():
    backends.fp32_precision = "tf32"
    with full_precision(tf32=False):
        pass
    backends.fp32_precision = "ieee"
    assert backends.cuda.matmul.fp32_precision == "ieee"


@pytest.mark.usefixtures("restored")
def test_a_model_is_pruned_in_a_process_that_sets_fp32_precision():
    backends.cuda.matmul.fp32_precision = "tf32"
    backends.cudnn.conv.fp32_precision = "ieee"
    before = precisions()
    model = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(72, 2))
    prune_model(model, [torch.randn(16, 4, 3, 3)], PruneSettings())
    assert precisions() == before


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("matmul", ["highest", "high", "medium"])
@pytest.mark.parametrize("cudnn", [False, True])
def test_older_flags_are_restored_although_they_contradict_fp32_precision(matmul, cudnn, tf32):
    before = torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision(matmul)
    backends.cudnn.allow_tf32 = cudnn
    own = precisions()
    for each in OPERATIONS:
        each.fp32_precision = "ieee"
    backends.cuda.matmul.fp32_precision = backends.cudnn.conv.fp32_precision = "tf32"
    with full_precision(tf32):
        pass
    for each, precision in zip(PLACES, own, strict=True):
        each.fp32_precision = precision
    assert (torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32) == (matmul, cudnn)
    torch.set_float32_matmul_precision(before[0])
    backends.cudnn.allow_tf32 = before[1]
