"""What is a subnet worth? One forward pass over validation images, watched by the objectives that were asked for."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hwnas.data import ImageSet, NetworkInputs, Splits
from hwnas.data.inputs import CPU
from hwnas.data.network_inputs import KEPT_BYTES
from hwnas.errors import PluginError, RecipeError
from hwnas.export.graph import trace
from hwnas.export.int8_network import Int8Network, int8_network
from hwnas.export.quantization import check_layers
from hwnas.objectives.case import SubnetCase
from hwnas.objectives.config import EvaluationConfig
from hwnas.objectives.plugin import EvaluatedObjective, HasLayers, LimitsBatches
from hwnas.objectives.resolve import objective_of
from hwnas.space import Arch
from hwnas.supernet import Layout, SuperNet, calibrate_bn, extract_subnet
from hwnas.train.evaluate import inference_batch_size


@dataclass
class NetworkEvaluator:
    """Evaluates networks that are given; inputs are kept in memory as far as they are small, resized once."""

    layout: Layout
    """Of the archs that the networks have."""
    splits: Splits
    config: EvaluationConfig
    seed: int = 0
    """Of what objectives draw, such as fresh weights for zero-cost proxies."""
    device: torch.device = CPU
    """Where networks run."""
    _inputs: dict[tuple[str, int], NetworkInputs] = field(default_factory=dict)

    def case(self, arch: Arch, network: Callable[[], nn.Module]) -> SubnetCase:
        """Return what objectives may look at of ``arch``; nothing is computed, or made, before it is asked for."""
        return SubnetCase(
            arch, self.layout, self.splits.task, self.config, self.seed, lambda: self._placed(network()),
            lambda: self.prepared("calibration", arch), lambda: self.prepared("validation", arch),
        )  # fmt: skip

    def score(
        self, network: Callable[[], nn.Module], arch: Arch, names: Iterable[str] = (), images: int | None = None
    ) -> dict[str, float]:  # fmt: skip
        """Return values of a network by name, from one forward pass over the validation images.

        Args:
            network: makes it, in eval mode; it takes the images of ``arch``.
            arch: what it is.
            names: evaluated objectives, as recipes name them; the task's main score is always found.
            images: use only the first so many; None: all of the settings.

        Returns:
            Each objective by its own name, and what comes with it, such as its standard error. NaN where there is no
            finite value.

        Raises:
            PluginError, RecipeError: an objective that is unknown, needs no evaluation, or does not give its value.
        """
        case, task = self.case(arch, network), self.splits.task
        objectives = [_evaluated(case, name) for name in dict.fromkeys([task.score.name, *names])]
        made, inputs = case.network, case.validation_inputs.first(images)
        found: dict[str, float] = {}
        with ExitStack() as stack:
            observers = [stack.enter_context(objective.observer(case)) for objective in objectives]
            limits = [observer.most_images for observer in observers if isinstance(observer, LimitsBatches)]
            with torch.inference_mode():
                for batch, wanted in inputs.batches(min([inference_batch_size(inputs.resolution**2), *limits])):
                    outputs = made(batch)
                    for observer in observers:
                        observer.add(outputs, wanted)
            for objective, observer in zip(objectives, observers, strict=True):
                values = observer.values()
                if objective.name not in values:
                    raise PluginError(
                        f"objective {objective.name!r} gave values {sorted(values)}; its own name must be among them"
                    )
                if bad := {n: v for n, v in values.items() if not isinstance(v, (int, float))}:
                    raise PluginError(f"objective {objective.name!r} gave {bad}; its values must be numbers")
                found |= values
        return found

    def in_8_bits(self, network: nn.Module, arch: Arch) -> Int8Network:
        """Return a network as devices in int8 compute it, on the CPU, calibrated on training images.

        Raises:
            ExportError: there are too few images, or of one class only; or a layer is not known to the exporter.
        """
        config = self.config.quantization
        check_layers(config.float_layers, [name for name, _ in self.layout.blocks(self.layout.space.largest())])
        images, labels = self.calibration_in_8_bits(arch)
        return int8_network(trace(network), images, config, labels)

    def calibration_in_8_bits(self, arch: Arch) -> tuple[Tensor, Tensor]:
        """Return the training images ``(N, C, H, W)`` from which ranges in 8 bits are taken, and what they show."""
        images, labels = self.prepared("quantization", arch).tensors()
        return images.cpu(), labels.cpu()

    def score_in_8_bits(
        self, network: Callable[[], nn.Module], arch: Arch, images: int | None = None
    ) -> dict[str, float]:  # fmt: skip
        """Return the scores of a network as devices in int8 compute it, on the first so many validation images."""
        made, meter = self.in_8_bits(network(), arch), self.splits.task.meter()
        inputs = self.prepared("validation", arch).first(images)
        with torch.inference_mode():
            size = max(16, inference_batch_size(inputs.resolution**2) // 4)  # every map is gone over several times
            for batch, wanted in inputs.batches(size):
                meter.add(made(batch.cpu()), wanted.cpu())
        return meter.values()

    def by_layer(
        self, network: Callable[[], nn.Module], arch: Arch, names: Iterable[str]
    ) -> dict[str, dict[str, float]]:  # fmt: skip
        """Return what objectives that can say so give for every layer of a network: by objective, then by layer.

        Args:
            network: makes it, in eval mode; it takes the images of ``arch``.
            arch: what it is.
            names: evaluated objectives, as recipes name them.
        """
        case = self.case(arch, network)
        found: dict[str, dict[str, float]] = {}
        for objective in (_evaluated(case, name) for name in names):
            if isinstance(objective, HasLayers):
                layers = {name: float(v) for name, v in objective.by_layer(case).items() if math.isfinite(v)}
                found |= {objective.name: layers} if layers else {}
        return found

    def _placed(self, network: nn.Module) -> nn.Module:
        """A network where it runs; the given one stays where it is."""
        return network if self.device == CPU else copy.deepcopy(network).to(self.device)

    def inputs(self, images: ImageSet, arch: Arch) -> NetworkInputs:
        """Return images as ``arch`` takes them; nothing is read before they are asked for."""
        return NetworkInputs(images, arch.int("resolution"), *self.splits.mean_std, self.device)

    def prepared(self, name: str, arch: Arch) -> NetworkInputs:
        """Return the images of ``calibration``, ``quantization`` or ``validation`` as ``arch`` takes them."""
        key = (name, arch.int("resolution"))
        if key not in self._inputs:
            made, kept = self.inputs(self._part(name), arch), self._inputs.values()
            fits = made.n_bytes + sum(i.n_bytes for i in kept if i.kept is not None) <= KEPT_BYTES
            self._inputs[key] = made.keep() if fits else made
        return self._inputs[key]

    def _part(self, name: str) -> ImageSet:
        """The first images of a split, as many as the settings say; of those for ``quantization`` some, evenly."""
        calibration = self.splits.train.first(self.config.calibration_images)
        if name == "calibration":
            return calibration
        if name == "quantization":
            n = min(self.config.quantization.images, len(calibration))
            return calibration.take(torch.linspace(0, len(calibration) - 1, n).round().long())
        return self.splits.validation.first(self.config.validation_images)


@dataclass
class SubnetEvaluator:
    """Extracts, calibrates and evaluates the subnets of a supernet."""

    supernet: SuperNet
    splits: Splits
    config: EvaluationConfig
    seed: int = 0
    """Of what objectives draw, such as fresh weights for zero-cost proxies."""
    networks: NetworkEvaluator | None = None
    """Evaluates the extracted networks; None: one of its own, which keeps inputs of its own."""

    def __post_init__(self) -> None:
        made = NetworkEvaluator(self.supernet.layout, self.splits, self.config, self.seed)
        self._networks = self.networks or made

    def subnet(self, arch: Arch) -> nn.Sequential:
        """Return the calibrated plain network of ``arch`` in eval mode, on the CPU."""
        subnet = extract_subnet(self.supernet, arch)
        self.calibrate(subnet, arch)
        return subnet

    def calibrate(self, network: nn.Module, arch: Arch) -> None:
        """Recompute the batch norms of a network that takes the images of ``arch``; it stands on the CPU afterwards."""
        network.to(self._networks.device)
        seen = self._networks.prepared("calibration", arch)
        calibrate_bn(network, (x for x, _ in seen.batches(self.config.calibration_batch_size)))
        network.cpu()

    def case(self, arch: Arch, network: nn.Module | None = None) -> SubnetCase:
        """Return what objectives may look at of ``arch``; nothing is computed before it is asked for.

        Args:
            arch: which subnet.
            network: evaluated instead of the supernet's subnet.
        """
        return self._networks.case(arch, (lambda: self.subnet(arch)) if network is None else (lambda: network))

    def score(self, arch: Arch, names: Iterable[str] = (), images: int | None = None) -> dict[str, float]:
        """Return values of ``arch`` by name, from one forward pass over the validation images.

        See `NetworkEvaluator.score`.
        """
        return self._networks.score(lambda: self.subnet(arch), arch, names, images)

    def score_network(
        self, network: nn.Module, arch: Arch, names: Iterable[str] = (), images: int | None = None
    ) -> dict[str, float]:  # fmt: skip
        """Return the same for any network in eval mode that takes the images of ``arch``."""
        return self._networks.score(lambda: network, arch, names, images)

    def inputs(self, images: ImageSet, arch: Arch) -> Tensor:
        """Return images as ``arch`` takes them, ``(N, C, resolution, resolution)``, all at once."""
        return self._networks.inputs(images, arch).tensors()[0]


def _evaluated(case: SubnetCase, name: str) -> EvaluatedObjective:
    objective = objective_of(name, case.task)
    if objective.cost != "evaluated":
        raise RecipeError(f"objective {name!r} needs no evaluation; it is computed exactly for every arch")
    return objective
