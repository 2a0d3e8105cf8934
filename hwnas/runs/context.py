"""What is a run made of? Its recipe and its folder, and what follows from them, made when first asked for."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hwnas.archive import Archive
from hwnas.data import Splits, load_data
from hwnas.data.opened import SPLITS
from hwnas.errors import DeviceError, ResumeError, did_you_mean
from hwnas.export.onnx_check import OnnxNetwork
from hwnas.export.quantize import to_int8_onnx
from hwnas.latency.device import shipped_devices
from hwnas.latency.table import Device
from hwnas.objectives.exact import entropy_of_space, macs_of_space, params_of_space
from hwnas.objectives.plugin import ExactObjective, ValuesOfArchs
from hwnas.objectives.subnets import NetworkEvaluator, SubnetEvaluator
from hwnas.progress import Progress, silent
from hwnas.registry import made
from hwnas.runs.devices import known_devices
from hwnas.runs.executor import EXECUTORS, Executor
from hwnas.runs.folder import RunFolder
from hwnas.runs.history import DeviceSearch, read_settings
from hwnas.runs.kept import read_kept
from hwnas.runs.progress_log import ProgressLog
from hwnas.runs.recipe import Recipe
from hwnas.search.config import SearchConfig
from hwnas.search.limits import Limit, limits_for
from hwnas.space import Arch
from hwnas.supernet import Layout, SuperNet, make_layout
from hwnas.supernet.slot_sum import SlotSum
from hwnas.task import Score, Task
from hwnas.train.checkpoint import load_supernet, weights_version
from hwnas.train.device import chosen_device
from hwnas.train.evaluate import scores_of
from hwnas.train.phases import phase_space


@dataclass
class RunContext:
    """Recipe, folder and who is told of progress; the rest is made of these."""

    folder: RunFolder
    recipe: Recipe
    progress: Progress = silent
    compiled: dict[tuple[str, str], tuple[ExactObjective, Device, ValuesOfArchs]] = field(
        default_factory=dict, repr=False
    )
    """Exact objectives of devices, by the names of both, and what computes them for whole populations."""

    @cached_property
    def splits(self) -> Splits:
        """The dataset."""
        net = self.recipe.supernet
        return load_data(self.recipe.data, self.task, net.in_channels, net.classes, max(net.resolutions), self.progress)

    @cached_property
    def task(self) -> Task:
        """What the networks learn."""
        return self.recipe.task_object

    @property
    def score(self) -> Score:
        """The number that says how well a network does it."""
        return self.task.score

    @cached_property
    def layout(self) -> Layout:
        """Space and blocks of the recipe's supernet."""
        return make_layout(self.recipe.supernet)

    @cached_property
    def devices(self) -> dict[str, Device]:
        """The recipe's devices, and those that were searched later, by name."""
        return known_devices(self.folder, self.recipe.devices, self.recipe.supernet.precisions)

    @cached_property
    def macs(self) -> SlotSum:
        """Multiply-adds of every arch."""
        return macs_of_space(self.layout)

    @cached_property
    def params(self) -> SlotSum:
        """Parameters of every arch."""
        return params_of_space(self.layout)

    @cached_property
    def entropy(self) -> SlotSum:
        """Entropy of every arch, which says how deep it is."""
        return entropy_of_space(self.layout)

    @cached_property
    def executor(self) -> Executor:
        """Who evaluates."""
        return made(EXECUTORS, self.recipe.executor.name, self.recipe.executor.options)

    @cached_property
    def supernet(self) -> SuperNet:
        """The trained supernet.

        Raises:
            CheckpointError: it is not trained yet, or damaged.
            ResumeError: it is another supernet's.
        """
        found = load_supernet(self.folder.train)
        if found.config != self.recipe.supernet:
            raise ResumeError(
                f"{self.folder.train / 'supernet.safetensors'} was made with other settings of supernet; "
                "restore it, or train again with another --out"
            )
        return found

    @cached_property
    def trained_weights(self) -> str:
        """Version of the supernet's trained weights; empty where the run has no supernet."""
        path = self.folder.train / "supernet.safetensors"
        return weights_version(path) if path.exists() else ""

    @cached_property
    def networks(self) -> NetworkEvaluator:
        """Evaluates networks of this run, wherever their weights come from."""
        return NetworkEvaluator(self.layout, self.splits, self.recipe.evaluation, self.recipe.train.seed, self.compute)

    @cached_property
    def compute(self) -> torch.device:
        """Where networks are trained and evaluated.

        Raises:
            RecipeError: the recipe wants a GPU, and there is none.
        """
        return chosen_device(self.recipe.train.device)

    @cached_property
    def trained_evaluator(self) -> SubnetEvaluator:
        """Extracts and evaluates subnets of the trained supernet."""
        return self.evaluator(self.supernet)

    def evaluator(self, supernet: SuperNet) -> SubnetEvaluator:
        """Return what extracts and evaluates subnets of a supernet of this run."""
        return SubnetEvaluator(supernet, self.splits, self.recipe.evaluation, self.recipe.train.seed, self.networks)

    def test_scores(self, network: nn.Module, arch: Arch) -> dict[str, float]:
        """Return the scores of any network on the test images, at the resolution of ``arch``."""
        return scores_of(network, self.networks.inputs(self.splits.test, arch), self.task)

    def test_scores_in_8_bits(self, network: nn.Module, arch: Arch) -> dict[str, float]:
        """Return the scores on the test images of the INT8 file that is exported of a network, in ONNX Runtime."""
        channels, resolution, _ = self.layout.input_shape(arch)
        made = self.networks.in_8_bits(network, arch)
        with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
            path = Path(folder) / "model.onnx"
            to_int8_onnx(made.quantization, channels, resolution, path)
            return self.test_scores(OnnxNetwork(path), arch)

    @cached_property
    def images(self) -> dict[str, int]:
        """Images of every split, as the run was begun: what it found can be shown where its images are not at hand."""
        if "splits" not in self.__dict__ and self.folder.manifest.exists():
            remedy = "restore it, or remove it and start the run's command again"
            about = read_kept(dict[str, Any], self.folder.manifest, remedy).get("data", {})
            if all(isinstance(about.get(split), int) for split in SPLITS):
                return {split: about[split] for split in SPLITS}
        return {
            "train": len(self.splits.train),
            "validation": len(self.splits.validation),
            "test": len(self.splits.test),
        }

    @cached_property
    def validation_images(self) -> int:
        """Validation images of a full evaluation."""
        n = self.images["validation"]
        return min(n, self.recipe.evaluation.validation_images or n)

    def searched_images(self, search: SearchConfig) -> int:
        """Return the validation images of an evaluation while searching."""
        return min(self.validation_images, search.validation_images or self.validation_images)

    def archive(self) -> Archive:
        """Open the run's archive; use it as a context."""
        return Archive(self.folder.archive, self.layout.space, self.recipe.values_hash())

    def device(self, name: str) -> Device:
        """Return a device of the run.

        Raises:
            DeviceError: it has no such device.
        """
        if name not in self.devices:
            add = f"; add it with `hwnas search {self.folder.root} --devices {name}`"
            hint = add if name in shipped_devices() else did_you_mean(name, [*self.devices, *shipped_devices()])
            raise DeviceError(
                f"device {name!r} is not part of {self.folder.root}; it has {', '.join(self.devices)}{hint}"
            )
        return self.devices[name]

    def recipe_settings(self, name: str, given: str) -> DeviceSearch:
        """Return what the recipe says about the search of a device, within what the device has of memory and flash."""
        limits = limits_for(self.recipe.limits, name)
        has = self.devices[name].profile.limits if name in self.devices else {}
        own = [Limit(None, v, "<=", size) for v, size in has.items() if v not in {c.value for c in limits}]
        return DeviceSearch(
            device=given, objectives=self.recipe.objectives, front_size=self.recipe.export.front_size,
            constraints=tuple(map(str, (*limits, *own))), search=self.recipe.search,
            finish=self.recipe.finish,
        )  # fmt: skip

    def settings(self, name: str) -> DeviceSearch:
        """Return what is searched for a device: the settings in force, or the recipe's where it was never searched."""
        known = read_settings(self.folder.device(name))
        return known or self.recipe_settings(name, self.given_devices.get(name, name))

    @cached_property
    def given_devices(self) -> Mapping[str, str]:
        """How the recipe's devices were given, by name."""
        return dict(zip(self.devices, self.recipe.devices, strict=False))

    def told_for(self, device: str) -> Progress:
        """Return a progress that says for which device."""

        def told(task: str, done: float, total: float, note: str = "") -> None:
            self.progress(f"{task} for {device}", done, total, note)

        return told

    @contextmanager
    def recorded(self, verb: str, budget_s: float | None = None) -> Iterator[None]:
        """Let ``progress.jsonl`` say, too, what a verb tells; of verbs within each other the outermost counts.

        Args:
            verb: its name.
            budget_s: seconds for all that it does; how much of them is used is told, too.
        """
        told = self.progress
        if isinstance(told, ProgressLog):
            yield
            return
        log = ProgressLog(self.folder.progress, told)
        with log.of(verb, budget_s):
            self.progress = log
            try:
                yield
            finally:
                self.progress = told

    def check_phases(self) -> None:
        """Raise where a training phase names a field or value that the space does not have."""
        for phase in self.recipe.train.phases:
            phase_space(phase, self.layout.space)
