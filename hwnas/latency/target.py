"""What can time a network? Targets, by name.

A target is whatever runs ONNX models and says how long they took: ONNX Runtime on this machine or on a board behind
ssh, a phone on a cable, a simulator. A device profile names its target (``target: ssh`` with ``target_options: {host:
user@board}``), and everything that times models for that device asks it: the build of a table, its check, and the
check of the exported models of a run.

One of your own is a class with the three members of `Target`. Name it in a profile or a command as
``package.module:Class``, or announce a short name in the entry-point group ``hwnas`` as ``target.<name>``; the class
(or function) is called with the ``target_options``. `hwnas.testing.target` tests whether it keeps to the protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from hwnas.errors import MeasurementError, PluginError
from hwnas.latency import time_onnx
from hwnas.latency.device import DeviceProfile, TargetOption
from hwnas.latency.time_onnx import Burst, BurstConfig, Facts, TimingError
from hwnas.registry import Registry, made


class Target(Protocol):
    """Runs ONNX models and says how long they took."""

    @property
    def host(self) -> str | None:
        """Address of a machine that is contacted only when a user asks for it; None: may be used at any time."""

    def facts(self) -> Facts:
        """Say what the target is.

        Raises:
            MeasurementError: it does not say; `HostError`: it does not answer.
        """

    def bursts(
        self, models: Sequence[str | bytes], names: Sequence[str], reference: bytes, config: BurstConfig,
        schedule: Sequence[tuple[int, int]],
    ) -> Iterator[Burst]:  # fmt: skip
        """Time models one after the other.

        A lasting connection or a session of the model stays open no longer than the iterator.

        Args:
            models: files, or ONNX models as bytes; each has one input ``(batch, C, H, W)``.
            names: of the models, for messages.
            reference: a small fixed model. A target whose speed changes times it every now and then between the others
                and yields those bursts as of model `hwnas.latency.time_onnx.REFERENCE`; others may ignore it.
            config: how; what a target cannot do, such as pinning to cores, is an error when it is asked for.
            schedule: (number of the model, number of its session), in the order in which they are timed; each pair is
                one fresh session, in which a model is timed ``config.bursts`` times.

        Yields:
            What was timed, as soon as it is: what was yielded before an error is kept.

        Raises:
            MeasurementError: a model cannot be timed.
            HostError: the target was lost; the same command may continue later.
        """


TARGETS: Registry[Callable[..., Target]] = Registry(
    "target",
    {
        "onnxruntime": "hwnas.latency.target:ThisMachine",
        "process": "hwnas.latency.own_process:OwnProcess",
        "qai-hub": "hwnas.latency.ai_hub:AIHub",
        "ssh": "hwnas.latency.remote:RemoteHost",
    },
    needs=("__call__",),
    page="hwnas.latency.target",
)
"""Makers of targets, by the name that a device profile gives."""


class ThisMachine:
    """ONNX Runtime on the machine that hwnas runs on; the target ``onnxruntime``."""

    host: str | None = None

    def facts(self) -> Facts:
        """Return processor, runtime and usable cores."""
        return time_onnx.facts()

    def bursts(
        self, models: Sequence[str | bytes], names: Sequence[str], reference: bytes, config: BurstConfig,
        schedule: Sequence[tuple[int, int]],
    ) -> Iterator[Burst]:  # fmt: skip
        """Time models in this process; see `hwnas.latency.time_onnx.bursts`."""
        try:
            yield from time_onnx.bursts(models, names, reference, config, schedule)
        except TimingError as error:
            raise MeasurementError(str(error)) from error


def make_target(name: str, options: Mapping[str, TargetOption] | None = None) -> Target:
    """Return the target that a name stands for; nothing is contacted yet.

    Args:
        name: a shipped or announced short name, or ``package.module:object``.
        options: what its maker is called with, such as ``{"host": "user@board"}``.

    Raises:
        PluginError: the name stands for no target, or its maker does not take the options.
    """
    return made(TARGETS, name, options or {})


def resolve_target(
    profile: DeviceProfile, target: str | Target | None, options: Mapping[str, TargetOption] | None = None
) -> tuple[DeviceProfile, Target]:
    """Return what times models for a device, where a user may say so, and the profile that names it.

    Args:
        profile: of the device.
        target: its name, or the target itself, which a profile cannot name; default: that of the profile.
        options: what a named target is made with.

    Raises:
        PluginError: see `make_target`; or options without the name of a target.
    """
    if isinstance(target, str):
        named = profile.model_copy(update={"target": target, "target_options": dict(options or {})})
        return named, target_of(named)
    if options:
        raise PluginError(f"options {dict(options)} are of no target; name it, such as --target ssh")
    return profile, target_of(profile) if target is None else target


def target_of(profile: DeviceProfile) -> Target:
    """Return the target that times models for a device; nothing is contacted yet.

    Raises:
        PluginError: see `make_target`.
    """
    return make_target(profile.target, profile.target_options)


def on_another_machine(profile: DeviceProfile) -> bool:
    """Say whether a device is timed on a machine that is contacted only when a user asks for it, such as by ssh."""
    if "host" in (profile.conditions or {}):
        return True
    try:
        return target_of(profile).host is not None
    except PluginError:
        return False  # a target that cannot be used says so where it is to be used
