"""How do several processes train one supernet together? Each takes a part of every batch; gradients are averaged.

Every rank draws the same subnets and the same augmentation from the same seeds, so weights stay equal without being
sent. One flat all-reduce a step, after the gradients of all its subnets were added, is all that `torch`'s wrapper would
do here, and it knows which weights the subnets left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hwnas.errors import DataError, RecipeError
from hwnas.files import n_ranks


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this one is."""

    rank: int = 0
    world: int = 1

    def part(self, n: int) -> slice:
        """Return this rank's rows of ``n`` rows."""
        share = n // self.world
        return slice(self.rank * share, (self.rank + 1) * share)

    def check(self, batch_size: int, n_images: int) -> None:
        """Raise where the ranks cannot share batches equally.

        Raises:
            DataError: more ranks than images of a batch, or than training images.
            RecipeError: the batch size is no multiple of the ranks.
        """
        if self.world > min(batch_size, n_images):
            raise DataError(
                f"{self.world} ranks are more than there are images to share: batches of {batch_size}, "
                f"{n_images} training images; start fewer with torchrun --nproc-per-node"
            )
        if batch_size % self.world or min(batch_size, n_images) % self.world:
            raise RecipeError(
                f"train.batch_size={batch_size} ({n_images} training images) cannot be shared equally by "
                f"{self.world} ranks; make it a multiple of {self.world}"
            )

    def average(self, tensors: list[Tensor]) -> None:
        """Replace every tensor by its mean over all ranks, in place."""
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors])
        dist.all_reduce(flat)
        flat /= self.world
        for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def mean(self, value: float) -> float:
        """Return the mean of a number over all ranks."""
        if self.world == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=_device())
        dist.all_reduce(tensor)
        return float(tensor) / self.world


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started, with NCCL where there is a GPU a rank and gloo elsewhere."""
    if n_ranks() == 1 or not dist.is_available():
        yield Ranks()
        return
    if dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size())
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def _device() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


def synchronise_batch_norm(net: nn.Module) -> None:
    """Let all batch norms of a network use the statistics of the whole batch in training, in place."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = _synchronised(type(module))


_SYNCHRONISED: dict[type, type] = {}


def _synchronised(cls: type) -> type:
    """Return the subclass of a batch norm that sees all ranks; the same one every time."""
    if issubclass(cls, SynchronisedMixin):
        return cls
    if cls not in _SYNCHRONISED:
        _SYNCHRONISED[cls] = type(f"Synchronised{cls.__name__}", (SynchronisedMixin, cls), {})
    return _SYNCHRONISED[cls]


class SynchronisedMixin:
    """Batch statistics over all ranks; `torch.nn.SyncBatchNorm` does this for GPUs only and for whole layers only."""

    def forward(self: Any, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` with any C up to the layer's channels."""
        if not self.training:
            y: Tensor = super().forward(x)  # type: ignore[misc]
            return y
        c, n = x.shape[1], dist.get_world_size() * x.numel() // x.shape[1]
        wide = x.float()
        # Deviations from a mean that all ranks know: the sum of squares alone would lose digits.
        mean = _AddRanks.apply(wide.sum((0, 2, 3))) / n  # type: ignore[no-untyped-call]
        centred = wide - mean.view(1, -1, 1, 1)
        variance = _AddRanks.apply(centred.square().sum((0, 2, 3))) / n  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self.running_mean[:c].lerp_(mean, self.momentum)
            self.running_var[:c].lerp_(variance * (n / (n - 1)), self.momentum)
        scale = self.weight[:c] * torch.rsqrt(variance + self.eps)
        out: Tensor = centred * scale.view(1, -1, 1, 1) + self.bias[:c].view(1, -1, 1, 1)
        return out.to(x.dtype)


class _AddRanks(torch.autograd.Function):
    """Sum over all ranks; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].clone()
        dist.all_reduce(total)
        return total
