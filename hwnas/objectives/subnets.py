"""What is a subnet worth? Accuracy and introspectability of extracted subnets; params and MACs of a whole space."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from hwnas.data import ImageSet, Splits, as_input
from hwnas.latency.table import block_ops
from hwnas.objectives.introspectability import ClassProfiles, IntrospectabilityConfig
from hwnas.objectives.proxies.by_name import ProxyCase, proxy_scores
from hwnas.space import Arch
from hwnas.supernet import BlockSpec, Layout, SuperNet, calibrate_bn, count_params, extract_subnet
from hwnas.supernet.slot_sum import SlotSum
from hwnas.train.evaluate import inference_batch_size


class EvaluationConfig(BaseModel):
    """How subnets are evaluated during a search."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    calibration_images: int = Field(default=2000, ge=1)
    """Training images from which batch norm is recalibrated (all, if there are fewer)."""
    calibration_batch_size: int = Field(default=200, ge=2)
    validation_images: int | None = Field(default=None, ge=1)
    """Validation images used; None: all."""
    introspectability: IntrospectabilityConfig = IntrospectabilityConfig()
    proxy_images: int = Field(default=64, ge=2)
    """Training images of one batch for zero-cost proxies."""


@dataclass(frozen=True)
class SubnetScore:
    """What one evaluation of a subnet gives."""

    top1_percent: float
    top1_stderr_percent: float
    """Standard error from the number of images."""
    introspectability: float


@dataclass
class SubnetEvaluator:
    """Extracts, calibrates and validates subnets; inputs are kept in memory, resized once per resolution."""

    supernet: SuperNet
    splits: Splits
    config: EvaluationConfig
    _inputs: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    def subnet(self, arch: Arch) -> nn.Sequential:
        """Return the calibrated plain network of ``arch`` in eval mode."""
        subnet = extract_subnet(self.supernet, arch)
        images = self._prepared("calibration", arch)
        calibrate_bn(subnet, images.split(self.config.calibration_batch_size))
        return subnet

    def score(self, arch: Arch, images: int | None = None) -> SubnetScore:
        """Return accuracy and introspectability of ``arch`` on the validation images, from one forward pass.

        Args:
            arch: which subnet.
            images: use only the first so many; None: all of the settings.
        """
        return self.score_network(self.subnet(arch), arch, images)

    @torch.inference_mode()
    def score_network(self, net: nn.Module, arch: Arch, images: int | None = None) -> SubnetScore:
        """Return the same for any network that takes the images of ``arch``."""
        inputs, labels = self._prepared("validation", arch)[:images], self._part("validation").labels[:images]
        right, n = 0, len(labels)
        with ClassProfiles(net, self.config.introspectability.reduce) as profiles:
            size = inference_batch_size(inputs)
            for i in range(0, n, size):
                logits = net(inputs[i : i + size])
                if not bool(torch.isfinite(logits).all()):
                    return SubnetScore(math.nan, math.nan, math.nan)
                profiles.add(logits)
                right += int((logits.argmax(1) == labels[i : i + size]).sum())
            share = right / n
            stderr = 100 * math.sqrt(max(share * (1 - share), 0.25 / n) / n)
            return SubnetScore(100 * share, stderr, profiles.introspectability())

    def proxies(self, arch: Arch, names: Sequence[str], seed: int) -> dict[str, float]:
        """Return zero-cost proxies of ``arch`` with fresh weights; see `PROXIES`. NaN where there is no finite value.

        Args:
            arch: which subnet.
            names: of `PROXIES`.
            seed: of weights and of what the proxies draw.
        """
        layout = self.supernet.layout
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = layout.build_subnet(arch)
        n = self.config.proxy_images
        images = self._prepared("calibration", arch)[:n]

        def trained() -> tuple[nn.Module, Tensor, Tensor, Sequence[Tensor]]:
            calibration = self._prepared("calibration", arch).split(self.config.calibration_batch_size)
            labels = self._part("validation").labels
            return extract_subnet(self.supernet, arch), self._prepared("validation", arch), labels, calibration

        case = ProxyCase(network, layout.blocks(arch), images, self.splits.train.labels[: len(images)], trained, seed)
        return proxy_scores(names, case)

    def inputs(self, images: ImageSet, arch: Arch) -> Tensor:
        """Return images as ``arch`` takes them, ``(N, C, resolution, resolution)``."""
        return as_input(images.images, arch.int("resolution"), *self.splits.mean_std)

    def _part(self, name: str) -> ImageSet:
        if name == "calibration":
            return self.splits.train.take(torch.arange(min(len(self.splits.train), self.config.calibration_images)))
        n = self.config.validation_images or len(self.splits.validation)
        return self.splits.validation.take(torch.arange(min(len(self.splits.validation), n)))

    def _prepared(self, name: str, arch: Arch) -> Tensor:
        key = (name, arch.int("resolution"))
        if key not in self._inputs:
            self._inputs[key] = self.inputs(self._part(name), arch)
        return self._inputs[key]


def fvcore_macs(net: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Return the multiply-adds of a network as fvcore counts them, convolutions and linear layers, each once.

    An independent count of what `macs_of_space` adds up block by block; slower, so for models that leave only.
    fvcore's further entries, for batch norm and pooling, are left out: batch norm is folded in a deployed model.

    Args:
        net: in eval mode.
        input_shape: channels, height, width.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fvcore uses parts of torch that announce their end
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(net, torch.zeros(1, *input_shape))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        counts = analysis.by_operator()
    return int(counts.get("conv", 0) + counts.get("linear", 0))


def macs_of_space(layout: Layout) -> SlotSum:
    """Return the multiply-adds of a whole space as look-ups; convolutions and linear layers, each counted once."""
    return SlotSum.of(layout, lambda block: float(sum(op.macs for op in block_ops(block))))


def params_of_space(layout: Layout) -> SlotSum:
    """Return the parameters of a whole space as look-ups: every trainable tensor of the extracted subnet."""
    return SlotSum.of(layout, lambda block: _block_params(replace(block, in_size_px=0)))


@lru_cache(maxsize=100_000)
def _block_params(block: BlockSpec) -> float:
    with torch.device("meta"):
        return float(count_params(block.build()))
