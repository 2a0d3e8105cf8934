"""How are random numbers drawn from PyTorch's global generators without anybody noticing?

Some layers (dropout) can draw from nowhere else. Whoever calls hwnas has a stream of random numbers of their own, which
must come out as if hwnas had drawn none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Let the global generators of the CPU and of ``device`` begin at ``seed``; afterwards they go on as before.

    Args:
        seed: of both; weights and dropout are then those that ``torch.manual_seed`` gives.
        device: where a network runs; None or a CPU: the CPU's generator alone.
    """
    cuda = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
