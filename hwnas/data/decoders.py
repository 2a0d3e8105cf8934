"""Who decodes images? Processes that begin when images are read first, and stay.

On Linux they are copies of the process that asks, made while it is still small: what it computes later is not copied.
They know the splits already, so that nothing but the numbers of images is sent to them; pixels come back in shared
memory.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.util import Finalize
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwnas.data.left_out import SKIP
from hwnas.data.source import Pixels
from hwnas.errors import DataError, escaped
from hwnas.files import n_ranks

MOST_WORKERS = 8
"""Where a recipe names no number."""


class Readable(Protocol):
    """What images are read from: an opened split, or one whose pixels are kept on disk."""

    decodes: bool
    """Whether reading is work for other processes; otherwise threads do it."""

    def __len__(self) -> int:
        """How many images."""
        ...

    @property
    def what(self) -> str:
        """Begins messages."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of every image."""
        ...

    def place(self, index: int) -> str:
        """Return where an image lies."""
        ...

    def pixels(self, indices: Sequence[int] | NDArray[np.integer], /) -> Pixels:
        """Return ``(B, C, H, W)`` uint8."""
        ...

    @property
    def listing_digest(self) -> bytes:
        """A digest of names and sizes of the files; empty where images are not known by any."""
        ...


class Chunk(NamedTuple):
    """Some images that were read, and what could not be; exceptions would lose their class on the way."""

    pixels: Tensor
    """``(B, C, H, W)`` uint8; zeros for images that are skipped."""
    broken: tuple[tuple[int, str, str], ...] = ()
    """Position, place and reason of images that are skipped."""
    stop: str | None = None
    """Why nothing goes on."""


class Decoders:
    """Processes that read images of some splits; they end with the last stream that uses them."""

    def __init__(self, splits: Sequence[Readable], workers: int) -> None:
        """Name splits and the number of processes; they begin with the first request."""
        self.workers = workers
        self._splits = tuple(splits)
        self._pool: ProcessPoolExecutor | None = None
        self._end: Finalize | None = None

    def submit(self, split: Readable, rows: NDArray[np.int64], skip_broken: bool) -> Future[Chunk]:
        """Begin to read images of one of the splits."""
        number = next(i for i, known in enumerate(self._splits) if known is split)
        if self._pool is None:
            context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
            self._pool = ProcessPoolExecutor(self.workers, context, _begin, (self._splits,))
            # A process that was begun by another one waits for those that it began, before the pool ends by itself.
            self._end = Finalize(self, _shut_down, (self._pool,), exitpriority=100)
        try:
            return self._pool.submit(_read, number, rows, skip_broken)
        except BrokenProcessPool as error:
            lost: Future[Chunk] = Future()
            lost.set_exception(error)
            return lost

    def close(self) -> None:
        """End the processes; a later request begins new ones."""
        if self._end is not None:
            self._end()
        self._pool, self._end = None, None


def _shut_down(pool: ProcessPoolExecutor) -> None:
    pool.shutdown(wait=True, cancel_futures=True)


def default_workers() -> int:
    """Return how many processes decode where a recipe names no number: one less than there are cores for each rank.

    0 in a process that is one of several workers itself.
    """
    if multiprocessing.parent_process() is not None:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_WORKERS, cores // n_ranks() - 1))


def read_chunk(split: Readable, rows: NDArray[np.int64], skip_broken: bool) -> Chunk:
    """Read images in this process."""
    try:
        return Chunk(_tensor(split.pixels(rows)))
    except DataError as error:
        if not skip_broken:
            return Chunk(torch.empty(0), stop=f"{error}, {SKIP}")
    read: list[Tensor | None] = []
    broken = []
    for position, row in enumerate(rows.tolist()):
        try:
            read.append(_tensor(split.pixels([row])))
        except DataError as error:
            read.append(None)
            broken.append((position, escaped(split.place(row)), str(error)))
    one = next((r for r in read if r is not None), None)
    if one is None:
        one = torch.zeros((1, *split.shape), dtype=torch.uint8)
    return Chunk(torch.cat([torch.zeros_like(one) if r is None else r for r in read]), tuple(broken))


def _tensor(pixels: Pixels) -> Tensor:
    if not (pixels.flags.c_contiguous or pixels.transpose(0, 2, 3, 1).flags.c_contiguous):
        pixels = np.ascontiguousarray(pixels)
    # PyTorch warns of arrays that cannot be written, such as those of a source that gives its own.
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())


_SPLITS: tuple[Readable, ...] = ()
"""Of a process that decodes."""


def _begin(splits: tuple[Readable, ...]) -> None:
    """Prepare a process that decodes."""
    global _SPLITS
    _SPLITS = splits
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks ends it
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when the one that asks was killed, which the pool would not notice."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _read(number: int, rows: NDArray[np.int64], skip_broken: bool) -> Any:
    return read_chunk(_SPLITS[number], rows, skip_broken)
