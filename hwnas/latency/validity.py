"""Does a measured table hold for its target as it is now? Of another processor or runtime, latencies are others."""

from __future__ import annotations

from hwnas.errors import MeasurementError, PluginError, TableMismatchError
from hwnas.latency.measure import MeasureConfig, conditions_of
from hwnas.latency.table import Device
from hwnas.latency.target import Target, on_another_machine, target_of


def mismatches(device: Device, target: Target | None = None, strict: bool = False) -> list[str]:
    """Return why a measured table does not hold for its target as it is now; nothing where it holds.

    Nothing is said of tables that were not measured, and of those of another machine that would have to be contacted:
    unless a ``target`` is given, that is only asked when a user says so.

    Args:
        device: a table.
        target: what it shall hold for; default: the target of the device.
        strict: raise instead.

    Raises:
        TableMismatchError: with ``strict``, it was measured under other conditions.
    """
    profile, known = device.profile, device.profile.conditions
    if not known or (target is None and on_another_machine(profile)):
        return []
    try:
        facts = (target or target_of(profile)).facts()
    except (PluginError, MeasurementError) as error:
        found = [f"its target cannot be used here: {error}"]
    else:
        provider = profile.provider if facts.provider else None  # a table with a provider, of a target without any
        now = conditions_of(
            facts, MeasureConfig(threads=profile.threads or 1, batch_size=profile.batch_size), provider
        )  # fmt: skip
        found = [
            f"{name} is {known[name]!r} in the table and {getattr(now, name)!r} here"
            for name in ("device", "runtime", "provider", "threads", "batch_size")
            if name in known and known[name] != getattr(now, name)
        ]
    if not found:
        return []
    text = (
        f"the table of {device.name!r} was measured under other conditions ({'; '.join(found)}); "
        "its latencies do not hold here; measure again with `hwnas tables build`"
    )
    if strict:
        raise TableMismatchError(text)
    return [text]


def holds_now(device: Device) -> bool:
    """Say whether a device was measured, may be timed at any time, and its table holds for its target as it is now."""
    return bool(device.profile.conditions) and not on_another_machine(device.profile) and not mismatches(device)
