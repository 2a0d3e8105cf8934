"""How are images read that do not fit into memory? Decoded when they are asked for, ahead of need, by worker processes.

What is read follows from the request alone: workers decode, and everything that is drawn (augmentation) is drawn by the
process that asks. So the number of workers changes the speed, and no pixel.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
import signal
import threading
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hwnas.data.opened import Rows
from hwnas.data.source import Pixels
from hwnas.errors import DataError, escaped

CHUNK_BYTES = 2**22
"""About what a worker decodes at a time."""
AHEAD, USUAL_BATCH = 2, 64
"""So many batches of so many images are read before they are asked for."""
MOST_WORKERS = 8
"""Where a recipe names no number."""
SHARED_MEMORY = "/dev/shm"
"""Workers hand pixels over in it; containers often have 64 MB of it."""


class Readable(Protocol):
    """What a stream reads from: an opened split, or one whose pixels are kept on disk."""

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

    def listing_digest(self) -> bytes:
        """Return a digest of names and sizes of the files; empty where images are not known by any."""
        ...


class Decoded(NamedTuple):
    """What came of a request."""

    pixels: Tensor
    """``(B, C, H, W)`` uint8; zeros for what could not be read."""
    readable: NDArray[np.bool_]
    """``(B,)``: False for images that could not be read and are skipped."""


@dataclass(frozen=True)
class ImageStream:
    """Images of a split that are decoded whenever they are asked for; ``(N, C, H, W)`` uint8, none of it in memory."""

    split: Readable
    workers: int
    """Processes that decode, or threads that read what is decoded; 0: the process that asks."""
    skip_broken: bool = False
    """Whether images that cannot be read are left out; otherwise the first one is an error."""
    rows: Rows | None = None
    """Which of the split, in which order; None: all."""
    skipped: dict[str, str] = field(default_factory=dict, compare=False)
    """Where the images lie that were left out, and why; shared with the parts of a stream."""

    def __len__(self) -> int:
        return len(self.split if self.rows is None else self.rows)

    def part(self, index: NDArray[np.integer] | slice) -> ImageStream:
        """Return the images ``index``; nothing is read."""
        rows = np.arange(len(self.split)) if self.rows is None else self.rows
        return ImageStream(self.split, self.workers, self.skip_broken, rows[index], self.skipped)

    def feed(self, requests: Iterable[NDArray[np.int64]], pinned: bool = False) -> Generator[Decoded, None, None]:
        """Yield the images of one request after the other, the next ones being decoded meanwhile.

        Args:
            requests: ``(B,)`` numbers of images each; may be endless, and is asked some requests ahead.
            pinned: whether pixels come in memory from which a GPU copies without waiting.

        Raises:
            DataError: an image cannot be read and ``skip_broken`` is off; or a worker was ended by the system.
        """
        size = max(1, CHUNK_BYTES // math.prod(self.split.shape))
        chunks = _Chunks(requests, size, self.rows)
        decoded = self._by_processes(chunks, pinned) if self.split.decodes else self._by_threads(chunks)
        with closing(decoded):
            while True:
                found: list[_Chunk] = []
                while not found or not chunks.ends.popleft():
                    if (chunk := next(decoded, None)) is None:
                        return
                    if chunk.stop is not None:
                        raise DataError(chunk.stop)
                    found.append(chunk)
                yield self._joined(found)

    def _by_processes(self, chunks: _Chunks, pinned: bool) -> Generator[_Chunk, None, None]:
        try:
            with _without_interruptions(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of more workers than cores: the recipe says how many
                loader = DataLoader(
                    _Decoder(self.split, self.skip_broken), batch_size=None, sampler=chunks, collate_fn=_same,
                    num_workers=self.workers, pin_memory=pinned,
                    prefetch_factor=max(2, -(-self._ahead(chunks.size) // self.workers)) if self.workers else None,
                )  # fmt: skip
                decoded = iter(loader)
            yield from decoded
        except (RuntimeError, ConnectionError, EOFError) as error:  # where a worker died
            if isinstance(error, RuntimeError) and "worker" not in str(error):
                raise
            raise DataError(
                f"a process that reads images of {self.split.what} was ended by the system, mostly for want of memory; "
                f"give fewer with data.workers (now {self.workers}), or a smaller data.image_size_px"
            ) from error

    def _by_threads(self, chunks: _Chunks) -> Generator[_Chunk, None, None]:
        read, waiting = _Decoder(self.split, self.skip_broken), iter(chunks)
        with ThreadPoolExecutor(max(1, self.workers)) as pool:
            ahead = deque(pool.submit(read.__getitem__, rows) for rows in islice(waiting, self._ahead(chunks.size)))
            while ahead:
                yield ahead.popleft().result()
                ahead.extend(pool.submit(read.__getitem__, rows) for rows in islice(waiting, 1))

    def _joined(self, chunks: list[_Chunk]) -> Decoded:
        readable = np.ones(sum(len(c.pixels) for c in chunks), dtype=bool)
        begin = 0
        for chunk in chunks:
            for position, where, why in chunk.broken:
                readable[begin + position] = False
                self.skipped[where] = why
            begin += len(chunk.pixels)
        return Decoded(chunks[0].pixels if len(chunks) == 1 else torch.cat([c.pixels for c in chunks]), readable)

    def _ahead(self, chunk: int) -> int:
        """Chunks of that many images that are read before they are asked for: about `AHEAD` usual batches of them."""
        wanted = AHEAD * -(-USUAL_BATCH // chunk)
        if not self.split.decodes or not os.path.isdir(SHARED_MEMORY):
            return wanted
        free = shutil.disk_usage(SHARED_MEMORY).free // 2
        return max(1, min(wanted, free // (chunk * math.prod(self.split.shape))))


@contextmanager
def _without_interruptions() -> Iterator[None]:
    """Keep the handler of signals that there is.

    PyTorch installs one that raises wherever the program is when a worker dies; without it, that is noticed by whoever
    waits for the worker.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def default_workers() -> int:
    """Return how many processes decode where a recipe names no number: one less than there are cores."""
    if multiprocessing.current_process().daemon:  # may have no children
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_WORKERS, cores - 1))


class _Chunk(NamedTuple):
    """What a worker hands over; exceptions would lose their class on the way."""

    pixels: Tensor
    broken: tuple[tuple[int, str, str], ...] = ()
    """Position, place and reason of images that are skipped."""
    stop: str | None = None
    """Why nothing goes on."""


class _Chunks:
    """Cuts requests into what workers decode at a time, and remembers where each request ends."""

    def __init__(self, requests: Iterable[NDArray[np.int64]], size: int, rows: Rows | None) -> None:
        self._requests, self.size, self._rows = requests, size, rows
        self.ends: deque[bool] = deque()

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        for request in self._requests:
            rows = request if self._rows is None else self._rows[request]
            for begin in range(0, len(rows), self.size):
                self.ends.append(begin + self.size >= len(rows))
                yield rows[begin : begin + self.size]


class _Decoder(Dataset[_Chunk]):
    """What runs in the workers."""

    def __init__(self, split: Readable, skip_broken: bool) -> None:
        self._split, self._skip = split, skip_broken

    def __getitem__(self, rows: NDArray[np.int64]) -> _Chunk:
        try:
            return _Chunk(_tensor(self._split.pixels(rows)))
        except DataError as error:
            if not self._skip:
                return _Chunk(torch.empty(0), stop=f"{error}, or leave such images out with data.broken_images=skip")
        return self._one_by_one(rows)

    def _one_by_one(self, rows: NDArray[np.int64]) -> _Chunk:
        """The images that can be read, and the places of the others."""
        read: list[Tensor | None] = []
        broken = []
        for position, row in enumerate(rows.tolist()):
            try:
                read.append(_tensor(self._split.pixels([row])))
            except DataError as error:
                read.append(None)
                broken.append((position, escaped(self._split.place(row)), str(error)))
        one = next((r for r in read if r is not None), None)
        if one is None:
            one = torch.zeros((1, *self._split.shape), dtype=torch.uint8)
        return _Chunk(torch.cat([torch.zeros_like(one) if r is None else r for r in read]), tuple(broken))


def _tensor(pixels: NDArray[np.uint8]) -> Tensor:
    # PyTorch warns of arrays that cannot be written, such as those of a source that gives its own.
    return torch.from_numpy(np.ascontiguousarray(pixels) if pixels.flags.writeable else pixels.copy())


def _same(chunk: Any) -> Any:
    return chunk
