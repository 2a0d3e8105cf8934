"""How are images read that do not fit into memory? Decoded when they are asked for, ahead of need, by worker processes.

What is read follows from the request alone: workers decode, and everything that is drawn (augmentation) is drawn by the
process that asks. So the number of workers changes the speed, and no pixel.
"""

from __future__ import annotations

import math
import os
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwnas.data.decoders import Chunk, Decoders, Readable, read_chunk
from hwnas.data.opened import Rows
from hwnas.errors import DataError

CHUNK_BYTES = 2**22
"""About what a worker decodes at a time."""
AHEAD, USUAL_BATCH = 2, 64
"""So many batches of so many images are read before they are asked for."""
SHARED_MEMORY = "/dev/shm"
"""Workers hand pixels over in it; containers often have 64 MB of it."""


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
    decoders: Decoders | None = None
    """Processes that read ahead; None: the process that asks reads, when it asks."""
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
        return ImageStream(self.split, self.decoders, self.skip_broken, rows[index], self.skipped)

    def feed(self, requests: Iterable[NDArray[np.int64]], pinned: bool = False) -> Generator[Decoded, None, None]:
        """Yield the images of one request after the other, the next ones being decoded meanwhile.

        Args:
            requests: ``(B,)`` numbers of images each; may be endless, and is asked some requests ahead.
            pinned: whether pixels come in memory from which a GPU copies without waiting.

        Raises:
            DataError: an image cannot be read and ``skip_broken`` is off; or a worker was ended by the system.
        """
        chunks = _Chunks(requests, max(1, CHUNK_BYTES // math.prod(self.split.shape)), self.rows)
        with closing(self._read(chunks)) as read:
            while True:
                found: list[Chunk] = []
                while not found or not chunks.ends.popleft():
                    if (chunk := next(read, None)) is None:
                        return
                    if chunk.stop is not None:
                        raise DataError(chunk.stop)
                    found.append(chunk)
                yield self._joined(found, pinned)

    def _read(self, chunks: _Chunks) -> Generator[Chunk, None, None]:
        """One chunk after the other: by processes, by threads where they are decoded already, or here."""
        if not self.split.decodes:
            with ThreadPoolExecutor(max(1, 0 if self.decoders is None else self.decoders.workers)) as pool:
                read = partial(read_chunk, self.split, skip_broken=self.skip_broken)
                yield from self._ahead(chunks, lambda rows: pool.submit(read, rows))
        elif self.decoders is None:
            yield from (read_chunk(self.split, rows, self.skip_broken) for rows in chunks)
        else:
            decoders, split, skips = self.decoders, self.split, self.skip_broken
            try:
                yield from self._ahead(chunks, lambda rows: decoders.submit(split, rows, skips))
            except BrokenProcessPool as error:
                decoders.close()
                raise DataError(
                    f"a process that reads images of {split.what} was ended by the system, mostly for want of memory; "
                    f"give fewer with data.workers (now {decoders.workers}), or a smaller data.image_size_px"
                ) from error

    def _ahead(
        self, chunks: _Chunks, submit: Callable[[NDArray[np.int64]], Future[Chunk]]
    ) -> Generator[Chunk, None, None]:
        waiting = iter(chunks)
        ahead = deque(submit(rows) for rows in islice(waiting, self._n_ahead(chunks.size)))
        try:
            while ahead:
                yield ahead.popleft().result()
                ahead.extend(submit(rows) for rows in islice(waiting, 1))
        finally:
            for future in ahead:
                future.cancel()

    def _joined(self, chunks: list[Chunk], pinned: bool) -> Decoded:
        readable = np.ones(sum(len(c.pixels) for c in chunks), dtype=bool)
        begin = 0
        for chunk in chunks:
            for position, where, why in chunk.broken:
                readable[begin + position] = False
                self.skipped[where] = why
            begin += len(chunk.pixels)
        pixels = chunks[0].pixels if len(chunks) == 1 else torch.cat([c.pixels for c in chunks])
        return Decoded(pixels.pin_memory() if pinned else pixels, readable)

    def _n_ahead(self, chunk: int) -> int:
        """Chunks of that many images that are read before they are asked for: about `AHEAD` usual batches of them."""
        wanted = AHEAD * -(-USUAL_BATCH // chunk)
        if not self.split.decodes or not os.path.isdir(SHARED_MEMORY):
            return wanted
        free = shutil.disk_usage(SHARED_MEMORY).free // 2
        return max(1, min(wanted, free // (chunk * math.prod(self.split.shape))))


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
