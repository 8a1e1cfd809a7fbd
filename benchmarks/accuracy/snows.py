"""SNOWS in its own environment: ``CLONE STATE IMAGES N M ITERATIONS OUT``.

STATE, IMAGES and OUT are files of ``torch.save``, and CLONE is a clone of https://github.com/mazumder-lab/SNOWS. Its
code runs with the defaults of its N:M command, on its ResNet-20; ITERATIONS are those of conjugate gradients in each
Newton step, 1000 there. On a CPU, commit 750497f needs two changes in ``CNN_pruning/prune``: ``pass`` at the
end of ``SNOWS.py``, whose last function has no body, and ``device='cpu'`` in place of ``device='cuda'`` in
``Layer_pruner_new.py``. Its accuracy measurements between the blocks are left out.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

import torch

K_STEP, BATCH, LAMBDA, SEED = 40, 128, 1e-4, 42  # defaults of its prune_NM.py


def main() -> None:
    """Prune the network, and write its state dict."""
    clone, state, images, n, m, iterations, out = sys.argv[1:]
    folder = Path(clone, "CNN_pruning")
    sys.path[:0] = [str(folder / "prune"), str(folder)]  # which have a helpers.py each; that of prune is complete
    sys.modules["detectors"] = types.ModuleType("detectors")  # downloads networks that are not used here
    from model.resnet_cifar10_manual import resnet20
    from prune import Layer_pruner_new

    Layer_pruner_new.compute_metrics = lambda *_, **__: (0.0, 0.0)
    samples = torch.load(images, weights_only=True)
    network = resnet20()
    network.load_state_dict(torch.load(state, weights_only=True))
    network.name = "resnet20_cifar10"
    names = [name for name, _ in network.named_parameters()]
    labelled = torch.utils.data.TensorDataset(samples, torch.zeros(len(samples)))
    pruner = Layer_pruner_new.LayerPruner(
        network.eval(), names, labelled, None, None, len(samples), None, LAMBDA, SEED, "cpu", "SNOWS"
    )
    pruned, *_ = pruner.prune_NM(
        N=int(n),
        M=int(m),
        k_step=K_STEP,
        w_warm=False,
        device="cpu",
        batch_size=BATCH,
        max_CG_iterations=int(iterations),
    )
    torch.save(pruned.state_dict(), out)


if __name__ == "__main__":
    main()
