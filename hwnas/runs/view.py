"""What does a run folder hold? Its devices, fronts, searches and weights, without changing anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hwnas.archive import Archive
from hwnas.arguments import checked_arguments
from hwnas.data import Splits
from hwnas.errors import RecipeError, ResumeError, some
from hwnas.latency.table import Device
from hwnas.objectives.resolve import objectives_of
from hwnas.objectives.subnets import SubnetEvaluator
from hwnas.runs.analysis.compare import RunComparison, compare_runs
from hwnas.runs.analysis.gains import DeviceGains, device_gains
from hwnas.runs.analysis.why_not import WhyNot, why_not
from hwnas.runs.context import RunContext
from hwnas.runs.evaluations import Candidate, Evaluations
from hwnas.runs.export import chosen_models
from hwnas.runs.front import Front, FrontModel, SearchedDevice, read_front
from hwnas.runs.history import DeviceSearch, History, read_history
from hwnas.runs.recipe import Recipe
from hwnas.runs.tracking.track import track
from hwnas.runs.tracking.trials import TrackedDevice
from hwnas.runs.weights import RunWeights
from hwnas.space import Arch
from hwnas.supernet import Layout, SuperNet


@dataclass
class RunView:
    """One run folder, to look at; `hwnas.runs.run.Run` has the verbs."""

    context: RunContext

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.context.folder.root

    @property
    def recipe(self) -> Recipe:
        """The recipe that this run works with."""
        return self.context.recipe

    @property
    def devices(self) -> Mapping[str, Device]:
        """Devices of the recipe, and those that were searched later, by name."""
        return self.context.devices

    @property
    def splits(self) -> Splits:
        """The images."""
        return self.context.splits

    @property
    def layout(self) -> Layout:
        """Space and blocks."""
        return self.context.layout

    @property
    def supernet(self) -> SuperNet:
        """The trained supernet; `train` makes it."""
        return self.context.supernet

    @property
    def evaluator(self) -> SubnetEvaluator:
        """Evaluates subnets of the trained supernet, as the search does."""
        return self.context.trained_evaluator

    @cached_property
    def weights(self) -> RunWeights:
        """Every version of the weights."""
        return RunWeights(self.context)

    def archive(self) -> Archive:
        """Open the archive of all evaluations; use it as a context."""
        return self.context.archive()

    @contextmanager
    def evaluations(self) -> Iterator[Evaluations]:
        """Open the evaluations: look up values, or run networks and keep them."""
        with self.archive() as archive:
            yield Evaluations(self.context, self.weights, archive)

    def searched(self) -> list[str]:
        """Return the devices that have a front, in their order."""
        return [name for name in self.devices if self.context.folder.device(name).front.exists()]

    def settings(self, device: str) -> DeviceSearch:
        """Return what is searched for a device."""
        return self.context.settings(self.context.device(device).name)

    def history(self, device: str) -> History:
        """Return the searches that were done for a device."""
        return read_history(self.context.folder.device(device))

    def front(self, device: str) -> Front:
        """Return the front of a device.

        Raises:
            DeviceError: the run has no such device.
            ResumeError: it has not been searched.
        """
        path = self.context.folder.device(self.context.device(device).name).front
        if not path.exists():
            raise ResumeError(
                f"{self.folder} has no front of {device!r}; it has {self.searched()}; "
                f"search it with `hwnas search {self.folder} --devices {device}`"
            )
        objectives = objectives_of(self.settings(device).objectives, self.context.task)
        return read_front(
            path, device, self.context.score, self.history(device).front_sha256,
            {plugin.name: plugin.direction for plugin in objectives},
        )  # fmt: skip

    def select(self, *selections: str, device: str | None = None) -> list[FrontModel]:
        """Return the models of fronts that any of some selections means; see `Front.select`.

        Args:
            selections: such as ``best:local-cpu:latency_ms<=1``, ``knee`` or ``different:4``.
            device: whose front is meant; default: every device's.

        Raises:
            SearchError: a selection of another form, or one that no model meets.
        """
        names = self.with_fronts() if device is None else [device]
        return chosen_models([self.front(name) for name in names], selections or ("all",), None, (), {})

    @checked_arguments
    def why_not(self, key: str, device: str) -> WhyNot:
        """Return why an evaluated model is not on the front of a device: broken limits, or models that are better.

        Args:
            key: first digits of its key.
            device: whose front is meant.

        Raises:
            ResumeError: no single evaluated arch has this key, or the device has not been searched.
        """
        with self.evaluations() as evaluations:
            return why_not(evaluations, self.searched_device(device), self.find(key, evaluations))

    def compare(self, *others: RunView) -> RunComparison:
        """Compare what runs on the same data reached, and their settings; see `RunComparison`.

        Args:
            others: runs, such as ones of other seeds; at least one.

        Raises:
            RecipeError: a run on other data, or one that has no device in common; or none is given.
        """
        if not others:
            raise RecipeError(f"{self.folder} is alone; name a second run, or ask for its gains")
        fronts = {run.folder: {name: run.front(name) for name in run.with_fronts()} for run in (self, *others)}
        return compare_runs(fronts, self.context.score)

    def gains(self) -> dict[str, DeviceGains]:
        """Return what each device gains from its own front, and what its usual models were on their way.

        Raises:
            ResumeError: the run has no front.
        """
        with self.evaluations() as evaluations:
            return device_gains(evaluations, [self.searched_device(name) for name in self.with_fronts()])

    @checked_arguments
    def track(self, tool: str, out: str | Path | None = None) -> str:
        """Write what the run has found for another tool; return the command that opens it.

        Made from the archive: also while a search goes on, and again later, when only what is new is added (optuna)
        or what was written is replaced.

        Args:
            tool: ``optuna`` (a study for its dashboard), ``mlflow`` or ``tensorboard``.
            out: file or folder, for mlflow also the address of a server; default: in the run's folder ``tracking/``.

        Raises:
            RecipeError: an unknown tool, one whose package is not installed, or a server that does not answer.
            ResumeError: no search has begun.
        """
        with self.evaluations() as evaluations:
            begun = [name for name in self.devices if evaluations.archive.searches(name)]
            if not begun:
                raise ResumeError(f"{self.folder} has no search yet; begin one with `hwnas search {self.folder}`")
            fronts = {name: self.front(name) for name in self.searched()}
            devices = [TrackedDevice(self.devices[n], self.settings(n), fronts.get(n)) for n in begun]
            return track(evaluations, devices, tool, out)

    def searched_device(self, name: str) -> SearchedDevice:
        """Return a device with its settings and its front."""
        last = self.history(name).last
        not_learnt = "" if last is None else last.not_learnt
        return SearchedDevice(self.context.device(name), self.settings(name), self.front(name), not_learnt)

    def named(self, devices: Sequence[str] | None) -> list[str]:
        """Return the names of devices of the run; None: of all."""
        return list(self.devices) if devices is None else [self.context.device(name).name for name in devices]

    def with_fronts(self) -> list[str]:
        """Return the devices that have a front, at least one.

        Raises:
            ResumeError: there is none.
        """
        if not (names := self.searched()):
            raise ResumeError(f"{self.folder} has no front yet; search it with `hwnas search {self.folder}`")
        return names

    def find(self, key: str, evaluations: Evaluations) -> Arch:
        """Return the evaluated arch whose key begins with ``key``.

        Raises:
            ResumeError: there is none, or several.
        """
        arch = evaluations.archive.find(key)
        if arch is None:
            known = dict.fromkeys(m.key for name in self.searched() for m in self.front(name))
            raise ResumeError(
                f"no single model {key!r} in {self.folder}: no key begins so, or several do; keys of its fronts are "
                f"{some(list(known), 12)}"
            )
        return arch

    def candidate(self, device: str, arch: Arch, evaluations: Evaluations) -> Candidate:
        """Return an arch with the weights that it has on the device's front, or else the last ones of the device."""
        on_front = {m.key: m.weights_version for m in self.front(device)} if device in self.searched() else {}
        if arch.key in on_front:
            return Candidate(arch, on_front[arch.key] or self.weights.of_device(device)[0])
        seen = evaluations.of_device(device)
        version = self.weights.serving(device, arch, lambda v: bool(seen.known(Candidate(arch, v))))
        return Candidate(arch, version)
