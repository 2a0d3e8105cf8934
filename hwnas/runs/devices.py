"""Which devices does a run know? Those of its recipe, and those that were searched later."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hwnas.errors import OutputError, RecipeError
from hwnas.files import make_folder
from hwnas.latency.build import needs_table
from hwnas.latency.device import PROFILE_FILE, load_profile, shipped_devices
from hwnas.latency.number_format import evaluated_precision
from hwnas.latency.table import SUMS_FILE, TABLE_FILE, Device, load_device, write_sums
from hwnas.runs.folder import RunFolder
from hwnas.runs.history import read_settings


def load_devices(
    folder: RunFolder, given: tuple[str, ...] | list[str], precisions: Sequence[str] = ()
) -> dict[str, Device]:  # fmt: skip
    """Return devices by name, in the order given; tables that this run measured are used.

    Args:
        folder: of the run.
        given: names or folders.
        precisions: those that a search may choose from, on devices that compute in both; empty: each has its own.

    Raises:
        DeviceError, TableError: unknown or damaged.
        RecipeError: two of them have one name.
    """
    found: dict[str, Device] = {}
    for one in given:
        device = _load(folder, one, precisions)
        if device.name in found:
            raise RecipeError(f"devices name {device.name!r} twice; give every device once, under a name of its own")
        found[device.name] = device
    return found


def check_some(devices: Sequence[str]) -> None:
    """Raise where there is no device to search.

    Raises:
        RecipeError: there is none.
    """
    if not devices:
        raise RecipeError("no device is given; name at least one, in the recipe (devices) or with --devices")


def known_devices(folder: RunFolder, of_recipe: tuple[str, ...], precisions: Sequence[str] = ()) -> dict[str, Device]:
    """Return the recipe's devices and, after them, those that were searched later; see `load_devices`."""
    found = load_devices(folder, of_recipe, precisions)
    for name in folder.searched():
        if name not in found:
            settings = read_settings(folder.device(name))
            assert settings is not None, "a searched device has settings"
            found[name] = _load(folder, settings.device, precisions, name)
    return found


def _load(folder: RunFolder, given: str, precisions: Sequence[str], name: str | None = None) -> Device:
    """A device as it was given, and as it computes in 8 bits where a search may choose that."""
    device = _load_alone(folder, given, name)
    if "int8" not in precisions or (in_8_bits := device.profile.in_8_bits) is None:
        return device
    where = _beside(given, device)
    if where not in shipped_devices() and not (Path(where) / PROFILE_FILE).is_file():
        where = str(folder.device(in_8_bits).table)  # the run keeps it
    other = _load_alone(folder, where)
    if evaluated_precision(other.profile.precision) != "int8":
        raise RecipeError(
            f"{in_8_bits} stands for {device.name} in 8 bits (in_8_bits), but computes in {other.profile.precision}"
        )
    return replace(device, in_8_bits=other)


def _beside(given: str, device: Device) -> str:
    """How the same device in 8 bits would be given: by its shipped name, or as a folder beside that of the device."""
    name = str(device.profile.in_8_bits)
    return name if name in shipped_devices() else str(Path(given).parent / name)


def _load_alone(folder: RunFolder, given: str, name: str | None = None) -> Device:
    """A device as it was given; measured on the spot, or its folder gone: as this run keeps it."""
    if name is not None and given not in shipped_devices() and not os.path.isfile(Path(given) / PROFILE_FILE):
        return load_device(folder.device(name).table)
    device = load_device(given)
    _check_name(device, given)
    own = folder.device(device.name).table
    return load_device(own) if needs_table(device) and (own / PROFILE_FILE).exists() else device


def _check_name(device: Device, given: str) -> None:
    if device.name in shipped_devices() and given not in shipped_devices():
        shipped = load_profile(device.name)
        if shipped.origin != "measured" and shipped != device.profile:
            raise RecipeError(
                f"{given} has the name of the shipped device {device.name!r} and other numbers; "
                "give it a name of its own in its profile.yaml, and its folder the same"
            )


def keep_device(folder: RunFolder, device: Device, given: str) -> None:
    """Copy the profile and the table of a device of one's own into the run, so that the run is complete without it.

    Raises:
        OutputError: it cannot be written.
    """
    if device.in_8_bits is not None:
        keep_device(folder, device.in_8_bits, _beside(given, device))
    source, target = Path(given), folder.device(device.name).table
    if given in shipped_devices() or source.resolve() == target.resolve():
        return
    make_folder(target)
    try:
        (target / SUMS_FILE).unlink(missing_ok=True)
        for name in (TABLE_FILE, PROFILE_FILE):  # the profile last: its presence says that the folder is complete
            if (source / name).is_file():
                shutil.copyfile(source / name, target / name)
        write_sums(target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}; free space or choose another --out") from None
