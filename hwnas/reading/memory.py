"""Is there enough memory for what a packed file holds? Asked before it is unpacked. And how is memory given back?"""

from __future__ import annotations

import ctypes
import gzip
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hwnas.errors import UnreadableError

SHARE = 0.8
"""Of the machine's memory, which one file may take."""


def memory_bytes() -> int:
    """Return the memory of this machine; where the system does not say, 16 GB."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 16 * 2**30


def check_memory(n_bytes: int, where: str | Path) -> None:
    """Raise where a file holds more than fits into memory.

    Raises:
        UnreadableError: it does.
    """
    if n_bytes > SHARE * memory_bytes():
        raise UnreadableError(
            str(where),
            f"it unpacks to {n_bytes / 2**30:,.1f} GB, this machine has {memory_bytes() / 2**30:,.0f} GB of memory",
        )


def give_back() -> None:
    """Give memory that was freed back to the system, which the allocator would keep otherwise (glibc)."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """While this lasts, memory that is freed stays with the process, and is given back at the end (glibc only).

    A training step frees what the next one asks for again. The allocator otherwise returns the upper end of it to the
    system between steps, and every page comes back with a fault: on a virtual machine a tenth of a step and more. The
    most memory that is in use at once is the same.
    """
    _set_allocator(_MAX_INT)
    try:
        yield
    finally:
        _set_allocator(2 * _LARGE)
        give_back()


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MAX_INT = 2**31 - 1
_LARGE = 32 * 2**20
"""Bytes above which a block is the system's own: what glibc's own threshold comes to where large blocks are freed."""


def _set_allocator(trim_threshold: int) -> None:
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, trim_threshold)


def unpacked_zip_bytes(path: Path) -> int:
    """Return how many bytes the members of a zip archive have, as its directory says; 0 for other files."""
    if not zipfile.is_zipfile(path):
        return 0
    with zipfile.ZipFile(path) as archive:
        return sum(member.file_size for member in archive.infolist())


def gunzipped(path: Path, n_header: int, size_of: Callable[[bytes], int]) -> bytes:
    """Return what a gzipped file holds, as far as its own header says that it goes.

    Args:
        path: the file.
        n_header: bytes of the header.
        size_of: takes the header, returns the bytes of the whole file.

    Raises:
        UnreadableError: it is damaged, or too large for the memory of this machine.
    """
    try:
        with gzip.open(path) as file:
            header = file.read(n_header)
            size = size_of(header)
            check_memory(size, path)
            return header + file.read(max(0, size - len(header)) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableError(str(path), str(error)) from None
