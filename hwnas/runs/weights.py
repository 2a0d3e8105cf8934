"""Which weights do the models of a run have? The supernet's, ones that a search adapted, or their own at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from torch import nn

from hwnas.errors import ResumeError
from hwnas.objectives.subnets import SubnetEvaluator
from hwnas.runs.context import RunContext
from hwnas.runs.finished import FinishedModels
from hwnas.runs.history import STAGE, Adapted, read_history
from hwnas.space import Arch
from hwnas.supernet import SuperNet
from hwnas.train.checkpoint import load_supernet, weights_version


class Evaluator(Protocol):
    """Makes and evaluates the networks of one version of the weights."""

    def subnet(self, arch: Arch) -> nn.Sequential:
        """Return the plain network of ``arch`` in eval mode."""
        ...

    def score(self, arch: Arch, names: Iterable[str] = (), images: int | None = None) -> dict[str, float]:
        """Return its values by name; see `hwnas.objectives.subnets.NetworkEvaluator.score`."""
        ...


@dataclass(frozen=True)
class FinishedEvaluator:
    """Evaluates one model that was trained to its end."""

    context: RunContext
    models: FinishedModels
    version: str

    def subnet(self, arch: Arch) -> nn.Sequential:
        """Return the trained network."""
        return self.models.network(self.version, arch)

    def score(self, arch: Arch, names: Iterable[str] = (), images: int | None = None) -> dict[str, float]:
        """Return its values by name."""
        return self.context.networks.score(lambda: self.subnet(arch), arch, names, images)


@dataclass
class RunWeights:
    """Every version of the weights of a run; the last adapted one that was used is kept in memory."""

    context: RunContext
    _adapted: tuple[str, SubnetEvaluator] | None = field(default=None, init=False, repr=False)

    @property
    def trained(self) -> str:
        """Version of the trained weights."""
        return self.context.trained_weights

    @cached_property
    def finished(self) -> FinishedModels:
        """The models that were trained to their end."""
        return FinishedModels(self.context.folder, self.context.layout)

    def of_device(self, name: str) -> tuple[str, ...]:
        """Return the supernet's versions from which models of a device may come.

        The trained one stands first, then the last of each search that adapted it.
        """
        searches = read_history(self.context.folder.device(name)).searches
        adapted = [record.adapted[-1].weights_version for record in searches if record.adapted]
        return tuple(dict.fromkeys([self.trained, *adapted]))

    def serving(self, name: str, arch: Arch, evaluated: Callable[[str], bool]) -> str:
        """Return the version of a device from which an arch is taken: the last that may have trained it.

        Args:
            name: of the device.
            arch: which.
            evaluated: says whether the arch was evaluated with a version.
        """
        versions, staged = self.of_device(name), self._staged()
        fitting = [v for v in versions if v not in staged or evaluated(v)]
        return (fitting or versions)[-1]

    def _staged(self) -> set[str]:
        """Versions that a staged training made: each has trained a part of the space only."""
        folder = self.context.folder
        return {
            one.weights_version
            for device in folder.searched()
            for record in read_history(folder.device(device)).searches
            for one in record.adapted
            if STAGE in record.settings
        }

    def adapted(self, name: str) -> tuple[Adapted, ...]:
        """Return how the last search of a device adapted the supernet; empty where it did not."""
        return read_history(self.context.folder.device(name)).adapted

    def use(self, version: str, supernet: SuperNet) -> SubnetEvaluator:
        """Keep what evaluates subnets of adapted weights, in place of the last such; return it."""
        self._adapted = version, self.context.evaluator(supernet)
        return self._adapted[1]

    def evaluator(self, version: str) -> Evaluator:
        """Return what makes and evaluates networks of a version.

        Raises:
            ResumeError: the run has no such weights, or the file holds others.
        """
        if version in self.finished.by_version:
            return FinishedEvaluator(self.context, self.finished, version)
        return self.supernet_evaluator(version)

    def teacher(self, version: str, arch: Arch) -> nn.Module | None:
        """Return the supernet's net of ``arch`` for a student of a version; None where the run has no supernet."""
        version = self.finished.origin(version)
        if version in self._staged():  # most operators have never been trained
            return None
        return self.supernet_evaluator(version).subnet(arch) if version else None

    def supernet_evaluator(self, version: str) -> SubnetEvaluator:
        """Return what extracts and evaluates subnets of a version of the supernet's weights; see `evaluator`."""
        if version == self.trained:
            return self.context.trained_evaluator
        if self._adapted is not None and self._adapted[0] == version:
            return self._adapted[1]
        folder = self.context.folder
        for device in folder.searched():
            for record in read_history(folder.device(device)).searches:
                for one in record.adapted:
                    if one.weights_version == version:
                        path = folder.device(device).root / one.folder / "supernet.safetensors"
                        if weights_version(path) != version:
                            raise ResumeError(
                                f"{path} has other weights than its search used ({version}); restore it or search again"
                            )
                        return self.use(version, load_supernet(path))
        for path in sorted(folder.root.glob("devices/*/adapted/*/supernet.safetensors")):  # of a search that goes on
            if weights_version(path) == version:
                return self.use(version, load_supernet(path))
        raise ResumeError(f"{folder.root} has no weights {version}; search it again with `hwnas search`")
