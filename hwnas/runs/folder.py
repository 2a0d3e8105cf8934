"""Where does each file of a run lie, and who may write there?

A run folder only grows: ``recipe.yaml`` and ``manifest.json`` are written once, a device's files only by verbs that are
about that device, and everything inside the lock.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from hwnas.files import exclusive


@dataclass(frozen=True)
class DeviceFolder:
    """Files of one device in a run."""

    root: Path

    @property
    def settings(self) -> Path:
        """What is searched for the device: objectives, limits, size of the front, the search."""
        return self.root / "search.yaml"

    @property
    def history(self) -> Path:
        """The searches that were done, and from which of them the front was chosen."""
        return self.root / "search.json"

    @property
    def front(self) -> Path:
        """One row a model."""
        return self.root / "front.csv"

    @property
    def models(self) -> Path:
        """Folder of the bundles, one for each model of the front."""
        return self.root / "models"

    @property
    def table(self) -> Path:
        """Folder of the profile with the block times that this run measured, or of a profile of the user's own."""
        return self.root / "table"

    @property
    def refitted(self) -> Path:
        """Folder of the profile whose correction was fitted again to exported models."""
        return self.root / "refitted"

    @property
    def latency_check(self) -> Path:
        """Estimated and measured latencies of the exported models."""
        return self.root / "latency_check.json"

    @property
    def baseline(self) -> Path:
        """What networks scaled by hand reach on the device for the same compute."""
        return self.root / "baseline.json"

    @property
    def adapted(self) -> Path:
        """Folder of weights that searches adapted to the device, or that were trained for it stage by stage."""
        return self.root / "adapted"

    @property
    def operators(self) -> Path:
        """Which operators every layer keeps in a staged training, with their times and scores."""
        return self.root / "operators.txt"


@dataclass(frozen=True)
class RunFolder:
    """Files of a run."""

    root: Path

    @property
    def recipe(self) -> Path:
        """The recipe that the run was begun with."""
        return self.root / "recipe.yaml"

    @property
    def manifest(self) -> Path:
        """Versions, seeds, hardware, data."""
        return self.root / "manifest.json"

    @property
    def archive(self) -> Path:
        """Every evaluation."""
        return self.root / "archive.db"

    @property
    def train(self) -> Path:
        """Folder of the supernet and of its training."""
        return self.root / "train"

    @property
    def plan(self) -> Path:
        """How the work was divided when the run was begun, and whether it has a supernet."""
        return self.root / "plan.json"

    @property
    def budget(self) -> Path:
        """The plan of the last search that was sized by time."""
        return self.root / "budget.json"

    @property
    def report(self) -> Path:
        """The page."""
        return self.root / "report.html"

    @property
    def progress(self) -> Path:
        """What is being done and how far it is, line by line; `hwnas watch` reads it."""
        return self.root / "progress.jsonl"

    @property
    def tracking(self) -> Path:
        """Folder of what `hwnas track` makes for other tools."""
        return self.root / "tracking"

    @property
    def other_models(self) -> Path:
        """Folder of bundles that were asked for by key and are on no front, by device."""
        return self.root / "models"

    @property
    def finetuned(self) -> Path:
        """Folder of fine-tuned bundles, by device."""
        return self.root / "finetuned"

    @property
    def finished(self) -> Path:
        """Folder of models that were trained to their end, one folder for those that were trained together."""
        return self.root / "finished"

    @property
    def baseline(self) -> Path:
        """Folder of trainings of networks scaled by hand."""
        return self.root / "baseline"

    @property
    def alone(self) -> Path:
        """Folder of what networks trained alone have reached."""
        return self.root / "alone"

    def device(self, name: str) -> DeviceFolder:
        """Return the files of a device, which need not be there."""
        return DeviceFolder(self.root / "devices" / name)

    def searched(self) -> list[str]:
        """Return the devices for which a search was begun, by name."""
        return sorted(path.parent.name for path in self.root.glob("devices/*/search.yaml"))

    def lock(self) -> AbstractContextManager[None]:
        """Keep every other process from writing here meanwhile; see `hwnas.files.exclusive`."""
        return exclusive(self.root)
