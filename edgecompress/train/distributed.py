"""Training in several processes that share each batch, as `torchrun` starts them."""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import autograd, distributed, nn

from edgecompress.errors import InputError
from edgecompress.operators.batchnorm_module import BatchNorm
from edgecompress.train.module.torch_model import TorchModel
from edgecompress_targets.tools import end_with_starter

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """rank 0 is the one that validates, saves and reports. device: this process's."""

    rank: int
    count: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process validates, saves and reports."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, whose gradients will be the means over all processes, as will BatchNorm's statistics in a
        TorchModel until `unwrap`; with one process, the module itself."""
        if self.count == 1:
            return module
        for layer in _batchnorms(module):
            layer.processes, layer.over_processes = self.count, _Mean.apply
        # a transform may take a weight's place, which then has no gradient
        unused = any(isinstance(m, TorchModel) and m.weight_transforms for m in module.modules())
        return nn.parallel.DistributedDataParallel(module, find_unused_parameters=unused)

    def unwrap(self, module: nn.Module) -> None:
        """Undoes `wrap`, so that one process can use the module without the others."""
        for layer in _batchnorms(module):
            layer.processes, layer.over_processes = 1, None

    def part(self, count: int) -> slice:
        """This process's places in a batch."""
        share = count // self.count
        return slice(self.rank * share, (self.rank + 1) * share)

    def from_main(self, value: T) -> T:
        """The first process's value, in all of them."""
        if self.count == 1:
            return value
        values: list[T] = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean of a value over all processes."""
        if self.count > 1:
            distributed.all_reduce(value)
            value /= self.count
        return value


class _Mean(autograd.Function):
    """A tensor's mean over all processes. The gradient is the mean too: each process's tensor is in every mean."""

    @staticmethod
    def forward(context: Any, value: torch.Tensor) -> torch.Tensor:
        result = value.detach().contiguous().clone()
        distributed.all_reduce(result)
        return result / distributed.get_world_size()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _Mean.forward(context, gradient)


def _batchnorms(module: nn.Module) -> list[BatchNorm]:
    return [m for m in module.modules() if isinstance(m, BatchNorm)]


def processes() -> Processes:
    """Joins the processes that torchrun started (WORLD_SIZE in the environment), or is alone. Once joined they stay
    together for the stages that follow: a process that joined again could meet one that has not left yet.

    One GPU a process when there are GPUs, else the CPU.
    """
    count, rank, local = int(os.environ.get("WORLD_SIZE", "1")), _rank("RANK"), _rank("LOCAL_RANK")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and local >= gpus:
        raise InputError(f"{count} processes share {gpus} GPUs on this machine: start at most one process for each GPU")
    device = torch.device("cuda", local) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(device)
    if count > 1 and not distributed.is_initialized():
        end_with_starter()  # without torchrun the others would wait for one another
        distributed.init_process_group("nccl" if gpus else "gloo")
        atexit.register(distributed.destroy_process_group)
    return Processes(rank, count, device)


def is_main() -> bool:
    """Whether this process writes files: the only one, or the first that torchrun started."""
    return _rank("RANK") == 0


def _rank(variable: str) -> int:
    return int(os.environ.get(variable, "0"))
