"""Where are weights kept, and how is a training continued exactly? In safetensors files, never in pickles."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hwnas.arguments import checked_arguments
from hwnas.errors import CheckpointError, HwnasError, OutputError, UnreadableError, shown
from hwnas.files import write_atomically
from hwnas.reading import ROUGHLY, parse_json, sha256_of
from hwnas.supernet import SuperNet, build_supernet, make_layout, read_settings

FORMAT = "1"

DIGEST = "sha256"
"""In a file's metadata: SHA-256 of the whole file, with zeros in its own place."""

HEADER_BYTES = 32 * 2**20
"""Of a header; that of 100,000 tensors has 10 MB."""

MOST_TENSORS = 50_000
"""In a file: a checkpoint of 40 networks that are trained together has 36,000."""

Shapes = Mapping[str, tuple[int, ...]]


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and JSON metadata into one safetensors file, atomically, with a digest of everything in it.

    Raises:
        OutputError: no space, no permission, or another fault of the file system.
    """
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    # One entry only: safetensors writes several in random order, and equal weights should be equal files.
    header = {"hwnas": json.dumps({**metadata, "format": FORMAT, DIGEST: _NONE}, sort_keys=True)}

    def write(temporary: Path) -> None:
        try:
            save_file(plain, temporary, header)
        except SafetensorError as error:  # it has no class of its own for a full disk
            raise OutputError(f"cannot write {path}: {error}; free space or choose another folder") from None
        with temporary.open("r+b") as file:
            digest, place = _digest(file, _NONE)
            file.seek(place)
            file.write(digest.encode())

    write_atomically(path, write)


_NONE = "0" * 64


def _digest(file: BinaryIO, stated: str) -> tuple[str, int]:
    """SHA-256 of a file with zeros in place of ``stated`` in its header, and where that stands; 0: nowhere."""
    file.seek(0)
    size = int.from_bytes(file.read(8), "little")
    header = file.read(min(size, HEADER_BYTES))
    place = header.rfind(f'{DIGEST}\\": \\"{stated}'.encode()) + len(DIGEST) + 6
    if place < len(DIGEST) + 6:
        return "", 0
    found = hashlib.sha256(size.to_bytes(8, "little"))
    found.update(header[:place] + _NONE.encode() + header[place + 64 :])
    while block := file.read(2**20):
        found.update(block)
    return found.hexdigest(), 8 + place


_checked: set[tuple[str, int, int, int]] = set()
"""Files that were found whole in this process, by path, size, time of change and inode."""


def _check_whole(path: Path, stated: object) -> None:
    """Compare a file with the digest that it states, once a process as long as it stays as it is."""
    with path.open("rb") as file:
        state = os.fstat(file.fileno())
        key = str(path.absolute()), state.st_size, state.st_mtime_ns, state.st_ino
        if key in _checked:
            return
        if not isinstance(stated, str) or _digest(file, stated)[0] != stated:
            raise ValueError("its bytes are not those that were written (sha256 differs)")
    _checked.add(key)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A safetensors file of ours that was found whole, and its metadata; nothing is loaded yet.

    Raises:
        CheckpointError: the file is missing, cut short, damaged or not ours.
    """
    try:
        with path.open("rb") as raw:
            if (size := int.from_bytes(raw.read(8), "little")) > HEADER_BYTES:
                raise ValueError(f"its header has {size:,} bytes, more than {HEADER_BYTES:,}")
        with safe_open(path, framework="pt") as file:
            if len(file.keys()) > MOST_TENSORS:
                raise ValueError(f"it has {len(file.keys()):,} tensors, more than {MOST_TENSORS:,}")
            metadata = parse_json((file.metadata() or {}).get("hwnas", "{}"), str(path))
            if not isinstance(metadata, dict):
                raise ValueError("its metadata are no object")
            found = metadata.pop("format", None)
            if found != FORMAT:
                raise CheckpointError(
                    f"{path} is not a file of hwnas (format {shown(found)}, expected {FORMAT!r}); restore or remove it"
                )
            if DIGEST in metadata:  # files of older versions have none
                _check_whole(path, metadata.pop(DIGEST))
            yield file, metadata
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; train first, or give the folder of a trained supernet") from None
    except UnreadableError as error:
        raise CheckpointError(f"{path} cannot be read: {error.reason}; it is damaged, restore or remove it") from None
    except HwnasError:
        raise
    except (SafetensorError, OSError, RuntimeError, *ROUGHLY) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; it is damaged, restore or remove it") from None


def load_tensors(path: Path, expected: Callable[[dict[str, Any]], Shapes] | None = None) -> tuple[
    dict[str, Tensor], dict[str, Any]
]:  # fmt: skip
    """Read what `save_tensors` wrote.

    Args:
        path: the file.
        expected: makes, of the file's metadata, the names and shapes that it must hold; compared with its header
            before any tensor is loaded.

    Raises:
        CheckpointError: the file is missing, cut short, damaged, not ours or of another network.
    """
    with _opened(path) as (file, metadata):
        names = list(file.keys())
        if expected is not None:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            check_shapes(found, expected(metadata), str(path))
        return {name: file.get_tensor(name) for name in names}, metadata


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a file of `save_tensors` that was found whole; see `load_tensors`."""
    with _opened(path) as (_, metadata):
        return metadata


def check_shapes(found: Shapes, own: Shapes, where: str) -> None:
    """Raise where tensors differ from those of a network in names or shapes.

    Raises:
        CheckpointError: the first few of each kind are named.
    """
    missing, extra = sorted(set(own) - set(found)), sorted(set(found) - set(own))
    wrong = [f"{k} {found[k]} instead of {own[k]}" for k in own if k in found and found[k] != own[k]]
    if missing or extra or wrong:
        kinds = (("missing", missing), ("unknown", extra), ("misshapen", wrong))
        parts = [f"{len(names)} {what}: {', '.join(names[:3])}" for what, names in kinds if names]
        raise CheckpointError(f"{where} is of another network: {'; '.join(parts)}; use the recipe it was made with")


def shapes_of(net: torch.nn.Module) -> Shapes:
    """Return names and shapes of a network's tensors."""
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


def load_weights(net: torch.nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy tensors into a network of exactly the same names and shapes.

    Raises:
        CheckpointError: names or shapes differ; the first few are named.
    """
    check_shapes({name: tuple(tensor.shape) for name, tensor in tensors.items()}, shapes_of(net), where)
    net.load_state_dict(dict(tensors))


def save_supernet(supernet: SuperNet, folder: Path, info: Mapping[str, Any] | None = None) -> Path:
    """Write ``supernet.safetensors`` with weights, settings and ``info`` into ``folder``; return its path."""
    path = Path(folder) / "supernet.safetensors"
    metadata = {"supernet": supernet.config.model_dump(mode="json"), "info": dict(info or {})}
    save_tensors(path, supernet.state_dict(), metadata)
    return path


@checked_arguments
def load_supernet(folder: str | Path) -> SuperNet:
    """Read the supernet of a run or of a training, given its folder or its file, in eval mode.

    Raises:
        CheckpointError: missing, damaged, or tensors that do not fit its own settings.
    """
    path = supernet_file(folder)
    made: list[SuperNet] = []

    def expected(metadata: dict[str, Any]) -> Shapes:
        if "supernet" not in metadata:
            raise CheckpointError(f"{path} holds no supernet; give the folder that `hwnas train` wrote")
        config = read_settings(metadata["supernet"], str(path))
        with torch.device("meta"):  # no weight takes memory before it is sure that the file has it
            made.append(SuperNet(config, make_layout(config)))
        return shapes_of(made[0])

    tensors, _ = load_tensors(path, expected)
    supernet = _with_memory(made[0])
    load_weights(supernet, tensors, str(path))
    return supernet.eval()


def _with_memory(supernet: SuperNet) -> SuperNet:
    """Return a supernet of the device ``meta`` as one on the CPU, channels-last, whose state is to be loaded."""
    if {name for name, _ in supernet.named_buffers()} - set(supernet.state_dict()):
        return build_supernet(supernet.config)  # it has more than its state
    filled: SuperNet = supernet.to_empty(device="cpu").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return filled


def supernet_file(folder: str | Path) -> Path:
    """Return the file of the supernet of a run or of a training, given its folder or the file itself."""
    path, name = Path(folder), "supernet.safetensors"
    if path.is_dir() or not path.suffix:
        return path / "train" / name if (path / "train" / name).exists() else path / name
    return path


def weights_version(path: Path) -> str:
    """Return twelve hexadecimal digits that change with any weight of a saved supernet.

    Raises:
        CheckpointError: the file is missing, or not as it was written.
    """
    read_metadata(path)
    try:
        return sha256_of(path)[:12]
    except UnreadableError as error:
        raise CheckpointError(f"{path} cannot be read: {error.reason}; train first with `hwnas train`") from None
