"""One module for each command: it reads options, calls a job or a library function, and prints the result.

May import ``options``, ``run``, ``sweep`` and below. Heavy imports are inside functions: ``--help`` and ``verify`` must
start at once, without torch.
"""

from sparsegpt_cli.commands.benchmark import benchmark
from sparsegpt_cli.commands.build import build
from sparsegpt_cli.commands.deepstream_export import deepstream_export
from sparsegpt_cli.commands.demo import demo
from sparsegpt_cli.commands.doctor import doctor
from sparsegpt_cli.commands.explain import explain
from sparsegpt_cli.commands.export import export
from sparsegpt_cli.commands.finetune import finetune
from sparsegpt_cli.commands.predict import predict
from sparsegpt_cli.commands.prune import prune, prune_export
from sparsegpt_cli.commands.report import report
from sparsegpt_cli.commands.run import run
from sparsegpt_cli.commands.sweep import sweep
from sparsegpt_cli.commands.train import train
from sparsegpt_cli.commands.triton_export import triton_export
from sparsegpt_cli.commands.verify import verify

__all__ = ["COMMANDS"]

COMMANDS = (
    *(prune_export, train, prune, finetune, export, verify),
    *(predict, build, benchmark, sweep, explain, report),
    *(triton_export, deepstream_export),
    *(run, doctor, demo),
)
