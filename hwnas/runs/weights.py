"""Which weights do the models of a run come from? The trained supernet's, or ones that a search adapted to a device."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hwnas.errors import ResumeError
from hwnas.objectives.subnets import SubnetEvaluator
from hwnas.runs.context import RunContext
from hwnas.runs.history import Adapted, read_history
from hwnas.supernet import SuperNet
from hwnas.train.checkpoint import load_supernet, weights_version


@dataclass
class RunWeights:
    """Every version of the weights of a run; the last adapted one that was used is kept in memory."""

    context: RunContext
    _adapted: tuple[str, SubnetEvaluator] | None = field(default=None, init=False, repr=False)

    @property
    def trained(self) -> str:
        """Version of the trained weights."""
        return self.context.trained_weights

    def of_device(self, name: str) -> tuple[str, ...]:
        """Return the versions from which models of a device may come: the trained one, then the last of each search."""
        searches = read_history(self.context.folder.device(name)).searches
        adapted = [record.adapted[-1].weights_version for record in searches if record.adapted]
        return tuple(dict.fromkeys([self.trained, *adapted]))

    def adapted(self, name: str) -> tuple[Adapted, ...]:
        """Return how the last search of a device adapted the supernet; empty where it did not."""
        return read_history(self.context.folder.device(name)).adapted

    def use(self, version: str, supernet: SuperNet) -> SubnetEvaluator:
        """Keep what evaluates subnets of adapted weights, in place of the last such; return it."""
        self._adapted = version, replace(self.context.trained_evaluator, supernet=supernet)
        return self._adapted[1]

    def evaluator(self, version: str) -> SubnetEvaluator:
        """Return what extracts and evaluates subnets of a version.

        Raises:
            ResumeError: the run has no such weights, or the file holds others.
        """
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
        raise ResumeError(f"{folder.root} has no weights {version}; search it again with `hwnas search`")
