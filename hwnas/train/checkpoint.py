"""Where are weights kept, and how is a training continued exactly? In safetensors files, never in pickles."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hwnas.arguments import checked_arguments
from hwnas.errors import CheckpointError
from hwnas.files import write_atomically
from hwnas.supernet import SuperNet, build_supernet, read_settings

FORMAT = "1"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and JSON metadata into one safetensors file, atomically."""
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    # One entry only: safetensors writes several in random order, and equal weights should be equal files.
    header = {"hwnas": json.dumps({**metadata, "format": FORMAT}, sort_keys=True)}
    write_atomically(path, lambda p: save_file(plain, p, header))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Raises:
        CheckpointError: the file is missing, cut short or not ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; train first, or give the folder of a trained supernet") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; it is damaged, restore or remove it") from None
    try:
        metadata = json.loads(header.get("hwnas", "{}"))
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path} cannot be read: {error}; it is damaged, restore or remove it") from None
    found = metadata.pop("format", None)
    if found != FORMAT:
        raise CheckpointError(f"{path} is not a file of hwnas (format {found!r}, expected {FORMAT!r})")
    return tensors, metadata


def load_weights(net: torch.nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy tensors into a network of exactly the same names and shapes.

    Raises:
        CheckpointError: names or shapes differ; the first few are named.
    """
    own = net.state_dict()
    missing, extra = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own))
    wrong = [
        f"{k} {tuple(tensors[k].shape)} instead of {tuple(own[k].shape)}"
        for k in own
        if k in tensors and tensors[k].shape != own[k].shape
    ]
    if missing or extra or wrong:
        found = (("missing", missing), ("unknown", extra), ("misshapen", wrong))
        parts = [f"{len(names)} {what}: {', '.join(names[:3])}" for what, names in found if names]
        raise CheckpointError(f"{where} is of another network: {'; '.join(parts)}; use the recipe it was made with")
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
    tensors, metadata = load_tensors(path)
    if "supernet" not in metadata:
        raise CheckpointError(f"{path} holds no supernet; give the folder that `hwnas train` wrote")
    supernet = build_supernet(read_settings(metadata["supernet"], str(path)))
    load_weights(supernet, tensors, str(path))
    return supernet.eval()


def supernet_file(folder: str | Path) -> Path:
    """Return the file of the supernet of a run or of a training, given its folder or the file itself."""
    path, name = Path(folder), "supernet.safetensors"
    if path.is_dir() or not path.suffix:
        return path / "train" / name if (path / "train" / name).exists() else path / name
    return path


def weights_version(path: Path) -> str:
    """Return twelve hexadecimal digits that change with any weight of a saved supernet."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; train first with `hwnas train`") from None
